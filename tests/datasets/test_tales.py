"""Generated stories: the answers are right, as a reader who keeps a record finds them."""

from __future__ import annotations

import pytest

from mannlab.datasets import tales
from mannlab.datasets.babi import Story

FAMILIES = list(tales.FAMILIES)


def answers(story: Story) -> list[str]:
    """What somebody says who reads the words alone."""
    place: dict[str, str] = {}
    before: dict[str, str] = {}
    things: dict[str, str] = {}  # to a person or a room
    said = []
    for line in story:
        match line.words:
            case (person, "walked" | "ran" | "went", "to", "the", room):
                if person in place:
                    before[person] = place[person]
                place[person] = room
            case (person, "picked", "up", "the", thing):
                assert things.get(thing, place[person]) == place[person], "it lies where it was left"
                things[thing] = person
            case (person, "left", "the", thing, "behind"):
                assert things[thing] == person
                things[thing] = place[person]
            case ("where", "is", "the", thing):
                said.append(place.get(things[thing], things[thing]))
            case ("where", "is", person):
                said.append(place[person])
            case ("is", person, "in", "the", room):
                said.append("yes" if place[person] == room else "no")
            case ("how", "many", "things", "does", person, "hold"):
                said.append(tales.NUMBERS[sum(where == person for where in things.values())])
            case ("where", "was", person, "before"):
                said.append(before[person])
            case other:
                raise AssertionError(other)
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_from_the_story(family):
    stories = tales.make(family, 50, "train")
    assert len(stories) == 50
    for story in stories:
        given = [line.answer for line in story if line.answer is not None]
        assert len(given) == tales.QUESTIONS
        assert given == answers(story)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_not_all_the_same(family):
    given = [line.answer for story in tales.make(family, 100, "train") for line in story if line.answer]
    most = max(given.count(answer) for answer in set(given)) / len(given)
    assert most < (0.75 if family == "counting" else 0.6)
    if family == "yes_no":
        assert 0.4 < given.count("yes") / len(given) < 0.6


def test_stories_are_the_same_each_time_and_others_for_a_test():
    one = tales.make("two_facts", 30, "train")
    assert one == tales.make("two_facts", 40, "train")[:30]
    assert not any(story in one for story in tales.make("two_facts", 30, "test"))
