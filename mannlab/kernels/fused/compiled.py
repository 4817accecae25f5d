"""Gates of recurrent controllers, compiled by numba, with their backward passes written by hand.

Arrays are whole histories, time first: ``raw[T, B, C]`` is what the controller says, ``states[T + 1, B, C]``
what it carries on, which padding holds. Gates are in the order of torch.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

from numba import njit

from mannlab.kernels.elementary import each_sigmoid, each_tanh, sigmoid, tanh
from mannlab.kernels.vectors import copy

jit: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@jit
def lstm_forward(t, valid, gates, cells, squashed, raw, states):
    """``gates[T, B, 4 C]``: activated in place; ``squashed[T, B, C]``: tanh of the new cells."""
    batch, size = raw.shape[1], raw.shape[2]
    for b in range(batch):
        gate, out, flat = gates[t, b], raw[t, b], squashed[t, b]
        old, new = cells[t, b], cells[t + 1, b]
        each_sigmoid(gate[: 2 * size])
        each_tanh(gate[2 * size : 3 * size])
        each_sigmoid(gate[3 * size :])
        # Slices, and not sums of indices, of which the compiler does not know that they are not negative;
        # and few arrays a loop, or it does not prove that they do not overlap.
        i, f, g, o = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size], gate[3 * size :]
        for n in range(size):
            new[n] = f[n] * old[n] + i[n] * g[n]
        for n in range(size):
            flat[n] = tanh(new[n])
        for n in range(size):
            out[n] = o[n] * flat[n]
        if valid[t, b]:
            copy(out, states[t + 1, b])
        else:
            copy(states[t, b], states[t + 1, b])
            copy(old, new)


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
        i, f, g, o = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size], gate[3 * size :]
        on_i, on_f = on_gate[:size], on_gate[size : 2 * size]
        on_g, on_o = on_gate[2 * size : 3 * size], on_gate[3 * size :]
        for n in range(size):
            on_h = on_out[n] + here * on_state[n]
            on_o[n] = on_h * flat[n] * o[n] * (one - o[n])
            through = on_h * o[n]
            on_f[n] = here * on_cell[n] + through - through * flat[n] * flat[n]
        for n in range(size):
            on_g[n] = on_f[n] * i[n] * (one - g[n] * g[n])
            on_i[n] = on_f[n] * g[n] * i[n] * (one - i[n])
        for n in range(size):
            on_cell[n] = (one - here) * on_cell[n] + on_f[n] * f[n]
            on_f[n] *= old[n] * f[n] * (one - f[n])
        for n in range(size):
            on_state[n] = (one - here) * on_state[n]


@jit
def gru_forward(t, valid, gates, own, raw, states):
    """``gates[T, B, 3 C]``: from the input, activated in place; ``own[T, B, 3 C]``: from the state."""
    batch, size = raw.shape[1], raw.shape[2]
    for b in range(batch):
        gate, mine, out, old = gates[t, b], own[t, b], raw[t, b], states[t, b]
        for n in range(2 * size):
            gate[n] = sigmoid(gate[n] + mine[n])
        r, z, fresh, own_fresh = gate[:size], gate[size : 2 * size], gate[2 * size :], mine[2 * size :]
        for n in range(size):
            fresh[n] = tanh(fresh[n] + r[n] * own_fresh[n])
        for n in range(size):
            out[n] = fresh[n] + z[n] * (old[n] - fresh[n])
        if valid[t, b]:
            copy(out, states[t + 1, b])
        else:
            copy(old, states[t + 1, b])


@jit
def gru_backward(t, valid, gates, own, states, on_raw, on_states, on_gates, on_own):
    """As :func:`lstm_backward`; ``on_gates`` and ``on_own``, both ``[T, B, 3 C]``, are filled."""
    batch, size = on_states.shape
    one = on_states.dtype.type(1)
    for b in range(batch):
        gate, mine, old = gates[t, b], own[t, b], states[t, b]
        on_gate, on_mine, on_out, on_state = on_gates[t, b], on_own[t, b], on_raw[b], on_states[b]
        here = one if valid[t, b] else one - one
        r, z, fresh, own_fresh = gate[:size], gate[size : 2 * size], gate[2 * size :], mine[2 * size :]
        on_r, on_z, on_fresh = on_gate[:size], on_gate[size : 2 * size], on_gate[2 * size :]
        for n in range(size):
            on_h = on_out[n] + here * on_state[n]
            on_z[n] = on_h * (old[n] - fresh[n]) * z[n] * (one - z[n])
            on_fresh[n] = on_h * (one - z[n]) * (one - fresh[n] * fresh[n])
            on_state[n] = (one - here) * on_state[n] + on_h * z[n]
        for n in range(size):
            on_r[n] = on_fresh[n] * own_fresh[n] * r[n] * (one - r[n])
        copy(on_gate[: 2 * size], on_mine[: 2 * size])
        on_own_fresh = on_mine[2 * size :]
        for n in range(size):
            on_own_fresh[n] = on_fresh[n] * r[n]
