"""Gates of recurrent controllers, compiled by numba, with their backward passes written by hand.

Arrays are whole histories, time first: ``raw[T, B, C]`` is what the controller says, ``states[T + 1, B, C]``
what it carries on, which padding holds. Gates are in the order of torch.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

from numba import njit

from mannlab.kernels.elementary import sigmoid, tanh

jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@jit
def lstm_forward(t, valid, gates, cells, squashed, raw, states):
    """``gates[T, B, 4 C]``: activated in place; ``squashed[T, B, C]``: tanh of the new cells."""
    batch, size = raw.shape[1], raw.shape[2]
    for b in range(batch):
        gate, out, flat = gates[t, b], raw[t, b], squashed[t, b]
        old, new = cells[t, b], cells[t + 1, b]
        for n in range(2 * size):
            gate[n] = sigmoid(gate[n])
        for n in range(2 * size, 3 * size):
            gate[n] = tanh(gate[n])
        for n in range(3 * size, 4 * size):
            gate[n] = sigmoid(gate[n])
        for n in range(size):
            new[n] = gate[size + n] * old[n] + gate[n] * gate[2 * size + n]
            flat[n] = tanh(new[n])
            out[n] = gate[3 * size + n] * flat[n]
        if valid[t, b]:
            states[t + 1, b] = out
        else:
            states[t + 1, b] = states[t, b]
            new[:] = old


@jit
def lstm_backward(t, valid, gates, cells, squashed, on_raw, on_states, on_cells, on_gates):
    """``on_states[B, C]`` and ``on_cells[B, C]``: in place, from after the step to before, but for what goes
    through the recurrent weights; ``on_gates[T, B, 4 C]``: filled."""
    batch, size = on_states.shape
    one = on_states.dtype.type(1)
    for b in range(batch):
        gate, flat, old, on_gate = gates[t, b], squashed[t, b], cells[t, b], on_gates[t, b]
        on_out, on_state, on_cell = on_raw[b], on_states[b], on_cells[b]
        here = one if valid[t, b] else one - one
        for n in range(size):
            i, f, g, o = gate[n], gate[size + n], gate[2 * size + n], gate[3 * size + n]
            on_h = on_out[n] + here * on_state[n]
            through = on_h * o
            on_c = here * on_cell[n] + through - through * flat[n] * flat[n]
            on_gate[n] = on_c * g * i * (one - i)
            on_gate[size + n] = on_c * old[n] * f * (one - f)
            on_gate[2 * size + n] = on_c * i * (one - g * g)
            on_gate[3 * size + n] = on_h * flat[n] * o * (one - o)
            on_cell[n] = (one - here) * on_cell[n] + on_c * f
            on_state[n] = (one - here) * on_state[n]


@jit
def gru_forward(t, valid, gates, own, raw, states):
    """``gates[T, B, 3 C]``: from the input, activated in place; ``own[T, B, 3 C]``: from the state."""
    batch, size = raw.shape[1], raw.shape[2]
    one = raw.dtype.type(1)
    for b in range(batch):
        gate, mine, out, old = gates[t, b], own[t, b], raw[t, b], states[t, b]
        for n in range(2 * size):
            gate[n] = sigmoid(gate[n] + mine[n])
        for n in range(size):
            fresh = tanh(gate[2 * size + n] + gate[n] * mine[2 * size + n])
            gate[2 * size + n] = fresh
            out[n] = (one - gate[size + n]) * fresh + gate[size + n] * old[n]
        if valid[t, b]:
            states[t + 1, b] = out
        else:
            states[t + 1, b] = old


@jit
def gru_backward(t, valid, gates, own, states, on_raw, on_states, on_gates, on_own):
    """As :func:`lstm_backward`; ``on_gates`` and ``on_own``, both ``[T, B, 3 C]``, are filled."""
    batch, size = on_states.shape
    one = on_states.dtype.type(1)
    for b in range(batch):
        gate, mine, old = gates[t, b], own[t, b], states[t, b]
        on_gate, on_mine, on_out, on_state = on_gates[t, b], on_own[t, b], on_raw[b], on_states[b]
        here = one if valid[t, b] else one - one
        for n in range(size):
            r, z, fresh = gate[n], gate[size + n], gate[2 * size + n]
            on_h = on_out[n] + here * on_state[n]
            on_fresh = on_h * (one - z) * (one - fresh * fresh)
            on_r = on_fresh * mine[2 * size + n] * r * (one - r)
            on_z = on_h * (old[n] - fresh) * z * (one - z)
            on_gate[n] = on_mine[n] = on_r
            on_gate[size + n] = on_mine[size + n] = on_z
            on_gate[2 * size + n] = on_fresh
            on_mine[2 * size + n] = on_fresh * r
            on_state[n] = (one - here) * on_state[n] + on_h * z
