"""Little stories with questions, made up here: a stand-in where bAbI is not at hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mannlab.datasets.babi import Line, Story

PEOPLE = ("anna", "boris", "clara", "david")
ROOMS = ("attic", "cellar", "hall", "library", "studio")
THINGS = ("lamp", "book", "key")
MOVES = ("walked", "ran", "went")
NUMBERS = ("none", "one", "two", "three")
QUESTIONS = 5  # a story
STATEMENTS = 2  # before each question


class World:
    """Who is where and holds what, told as it changes.

    Attributes:
        lines: told so far.
        place: of each person who was named.
        before: where each was before that.
        holder: of each thing that was named, while somebody holds it.
        found: the room of each thing that was put down.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.lines: Story = []
        self.place: dict[str, str] = {}
        self.before: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.found: dict[str, str] = {}

    def pick(self, of: object) -> str:
        options = list(of)  # type: ignore[call-overload]
        return str(options[self.random.integers(len(options))])

    def tell(self, *words: str) -> None:
        self.lines.append(Line(words, None))

    def ask(self, answer: str, *words: str) -> None:
        self.lines.append(Line(words, answer))

    def move(self) -> None:
        """Somebody goes to another room."""
        person = self.pick(PEOPLE)
        here = self.place.get(person)
        room = self.pick([room for room in ROOMS if room != here])
        if here is not None:
            self.before[person] = here
        self.place[person] = room
        self.tell(person, self.pick(MOVES), "to", "the", room)

    def handle(self) -> None:
        """Somebody picks a thing up or puts one down; where nobody can, somebody moves."""
        held = list(self.holder)
        if held and self.random.random() < 0.4:
            thing = self.pick(held)
            person = self.holder.pop(thing)
            self.found[thing] = self.place[person]
            self.tell(person, "left", "the", thing, "behind")
            return
        # A thing lies where it was left; one never named may be anywhere.
        able = [
            (person, thing)
            for person, room in self.place.items()
            for thing in THINGS
            if thing not in self.holder and self.found.get(thing, room) == room
        ]
        if not able:
            self.move()
            return
        person, thing = able[self.random.integers(len(able))]
        self.holder[thing] = person
        self.found.pop(thing, None)
        self.tell(person, "picked", "up", "the", thing)


def single_fact(world: World) -> bool:
    """Where somebody is: their last move tells."""
    person = world.pick(world.place)
    world.ask(world.place[person], "where", "is", person)
    return True


def two_facts(world: World) -> bool:
    """Where a thing is: who has it, and where they are."""
    known = [*world.holder, *world.found]
    if not known:
        return False
    thing = world.pick(known)
    room = world.found[thing] if thing in world.found else world.place[world.holder[thing]]
    world.ask(room, "where", "is", "the", thing)
    return True


def yes_no(world: World) -> bool:
    """Whether somebody is in a room; as often yes as no."""
    person = world.pick(world.place)
    here = world.place[person]
    yes = world.random.random() < 0.5
    room = here if yes else world.pick([room for room in ROOMS if room != here])
    world.ask("yes" if yes else "no", "is", person, "in", "the", room)
    return True


def counting(world: World) -> bool:
    """How many things somebody holds."""
    person = world.pick(world.place)
    count = sum(holder == person for holder in world.holder.values())
    world.ask(NUMBERS[count], "how", "many", "things", "does", person, "hold")
    return True


def earlier_place(world: World) -> bool:
    """Where somebody was before they came to where they are."""
    if not world.before:
        return False
    person = world.pick(world.before)
    world.ask(world.before[person], "where", "was", person, "before")
    return True


FAMILIES: dict[str, tuple[Callable[[World], bool], float]] = {  # and the share of statements about things
    "single_fact": (single_fact, 0.0),
    "two_facts": (two_facts, 0.5),
    "yes_no": (yes_no, 0.0),
    "counting": (counting, 0.6),
    "earlier_place": (earlier_place, 0.0),
}


def make(family: str, count: int, split: str) -> list[Story]:
    """``count`` stories of a family, always the same for a family and a split.

    Args:
        family: a key of ``FAMILIES``.
        count: number of stories, of ``QUESTIONS`` questions each.
        split: ``"train"`` or ``"test"``.
    """
    ask, about_things = FAMILIES[family]
    seed = [list(FAMILIES).index(family), ("train", "test").index(split)]
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return [_story(World(random), ask, about_things) for _ in range(count)]


def _story(world: World, ask: Callable[[World], bool], about_things: float) -> Story:
    asked = told = 0
    while asked < QUESTIONS:
        if not world.place or world.random.random() >= about_things:
            world.move()
        else:
            world.handle()
        told += 1
        if told >= STATEMENTS and ask(world):
            asked, told = asked + 1, 0
    return world.lines
