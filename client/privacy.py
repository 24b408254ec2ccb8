"""What may leave a client: a Flower mod around its app, driven by the node's own configuration.

The server has no say in it: `context.node_config` is set where the client runs, in the simulation, in our resident
client and in Flower's own SuperNode (`--node-config`) alike. Its keys:

- "facts": "all" (default) or "minimal". All: the arrays and the documented facts (`task.wire.TRAIN_FACTS`,
  `EVALUATE_FACTS`). Minimal: of a train reply the arrays and, of num_examples, local_norm and local_steps, what the
  strategy needs (the configuration's "needs"; nothing where it does not say); of an evaluate reply loss, accuracy
  and num-examples.
- "errors": "full" or "kind". Kind: of an error only the exception's class leaves, as its text may quote private data;
  the client's owner is told all of it (`client.owner`). The default is full, and kind where there is a "dp".
- "dp": "clip=0.5,noise=1.0,delta=1e-5": clip the update and add Gaussian noise, see `Dp`.
- "dp-ledger": the file that counts noised updates; by default beside the file that "identity" names.

What "dp" covers: the arrays of every update, against whoever sees all of them, the server included. The train loss and
the accuracies on the own shard are exact functions of the data and are not sent; evaluations, which are nothing else,
are not answered. What it does not cover: num_examples, local_steps and local_norm are exact, for they are counts that
the site chose to tell ("facts" = "minimal" with fedavg or fedmedian tells none); seconds and the moment of the reply;
whether a client answers at all, and the class of an error. The unit is the whole shard, so epsilon holds for all of
its examples at once. Noise is floating-point noise: attacks on its last bits (Mironov 2012,
doi:10.1145/2382196.2382264) are not defended against beyond rounding to the model's precision.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from client import owner
from client.budget import Ledger
from task import wire
from task.errors import UserError
from task.update import Arrays

LOCAL_ONLY = "see the log at the client"
NO_EVALUATION = "this client answers no evaluations: under dp exact figures of its data stay with it"

log = logging.getLogger("fedarena")

_OF_THE_DATA = {"train-loss", "accuracy-before", "accuracy-after"}  # exact figures, which no noise covers
_MINIMAL_EVALUATION = ("loss", "accuracy", wire.NUM_EXAMPLES)


@dataclass(frozen=True)
class Dp:
    """The Gaussian mechanism on one update (Dwork and Roth 2014, doi:10.1561/0400000042, appendix A).

    Attributes:
        clip: largest L2 norm of an update, the difference to the received arrays, over all arrays together; > 0.
        noise: standard deviation of the noise on every value, in units of clip; > 0.
        delta: the share that the reported epsilon may miss; 0 < delta < 1.
    """

    clip: float
    noise: float
    delta: float = 1e-5


def parse_dp(text: str) -> Dp:
    """What "clip=0.5,noise=1.0,delta=1e-5" means; delta may be left out.

    Raises:
        UserError: an unknown, missing or repeated part, or a number out of range.
    """
    how = (
        "write clip=NUMBER,noise=NUMBER or clip=NUMBER,noise=NUMBER,delta=NUMBER, such as clip=0.5,noise=1.0,delta=1e-5"
    )
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in ("clip", "noise", "delta") or name in values:
            raise UserError(f"dp {text!r}: {part.strip()!r} is not understood here; {how}")
        try:
            values[name] = float(number)
        except ValueError as error:
            raise UserError(f"dp {text!r}: {name} must be a number, not {number!r}; {how}") from error
        if not (math.isfinite(values[name]) and values[name] > 0):
            raise UserError(f"dp {text!r}: {name} must be a finite number > 0, not {number}; {how}")
    if missing := [name for name in ("clip", "noise") if name not in values]:
        raise UserError(f"dp {text!r}: {missing[0]} is missing; {how}")
    if values.get("delta", 0.5) >= 1:
        raise UserError(f"dp {text!r}: delta must be below 1, and far below one over the number of examples; {how}")
    return Dp(**values)


@dataclass(frozen=True)
class Policy:
    """What a node's configuration lets out.

    Attributes:
        minimal: whether facts that the strategy does not need stay.
        dp: clipping and noise; None: updates leave as they are.
        ledger: counts noised updates; None without dp.
    """

    minimal: bool = False
    dp: Dp | None = None
    ledger: Ledger | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Policy":
        """The policy of a `node_config`.

        Raises:
            UserError: a value that it does not know, or dp without a place for its ledger.
        """
        facts, errors = config.get("facts", "all"), config.get("errors", "full")
        if facts not in ("all", "minimal"):
            raise UserError(f"facts in the node's configuration must be all or minimal, not {facts!r}")
        if errors not in ("full", "kind"):
            raise UserError(f"errors in the node's configuration must be full or kind, not {errors!r}")
        if "dp" not in config:
            return cls(facts == "minimal")
        return cls(facts == "minimal", parse_dp(str(config["dp"])), Ledger(_ledger_file(config)))


def guard(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The mod: hands a message on to the app and lets out of the reply what the node's configuration allows.

    Train and evaluate messages of any action are filtered; a query is passed on, and its reply as well, errors apart.

    Raises:
        Exception: with "errors" = "full" whatever the app raised, for the runtime to tell.
    """
    config = context.node_config
    tells_all = config.get("errors", "kind" if "dp" in config else "full") == "full"
    try:
        reply = _answer(message, context, call_next, Policy.of(config))
    except Exception as error:  # the app's, of any kind: it becomes an answer
        if tells_all:
            raise
        owner.tell(message, context, error)
        return _failure(message, f"{type(error).__name__}: {LOCAL_ONLY}")
    if reply.has_error() and not tells_all and reply.error.reason != NO_EVALUATION:
        owner.tell(message, context, f"Error {reply.error.code}: {reply.error.reason}")
        return _failure(message, f"Error {reply.error.code}: {LOCAL_ONLY}")
    return reply


def noised(received: Arrays, new: Arrays, dp: Dp, entropy: Callable[[int], bytes] = os.urandom) -> Arrays:
    """The received arrays plus the clipped update plus noise of standard deviation dp.noise * dp.clip.

    Flower's `LocalDpMod` is not used: its noise comes from NumPy's global generator, which Keras seeds with a seed that
    the server knows; it neither clips nor noises arrays of shape (); it fails on integer arrays; and its noise is
    calibrated to one update with a formula that does not hold for epsilon > 1. Here every pair of values takes 16 fresh
    bytes of the operating system's cryptographic generator, not a small seed: noise that the server can see (on a
    weight which never moves) tells nothing of other pairs.

    Args:
        received: the global arrays, in their dtypes and shapes.
        new: the arrays after local training, in the same order and shapes.
        dp: the mechanism.
        entropy: gives that many random bytes; another one than the operating system's is for tests.

    Returns:
        New arrays in the dtypes and shapes of `received`. Arrays that are not floating-point (counters) come back as
        they were received: nothing of the data is in them, and they take no part in the norm.

    Raises:
        ValueError: the arrays differ from the received ones in number, shape or dtype.
    """
    sent = []
    for start, move in zip(received, clipped(received, new, dp.clip), strict=True):
        if not _is_float(start):
            sent.append(start.copy())
            continue
        noise = dp.noise * dp.clip * _normal(start.size, entropy).reshape(start.shape)
        with np.errstate(over="ignore"):  # out of the range of a half: not finite, and the server's gate says so
            sent.append(np.asarray(start + (move + noise)).astype(start.dtype))
    return sent


def clipped(received: Sequence[np.ndarray], new: Sequence[np.ndarray], clip: float) -> Arrays:
    """The update new - received as float64, scaled down to an L2 norm of at most `clip` over all arrays together.

    Args:
        received: the global arrays.
        new: the arrays after local training.
        clip: the largest norm, > 0.

    Returns:
        One array for each; zeros for an array that is not floating-point, and zeros all over for an update that is not
        finite: to fail instead would tell something exact.

    Raises:
        ValueError: the arrays differ from the received ones in number, shape or dtype.
    """
    if [(a.shape, a.dtype) for a in new] != [(x.shape, x.dtype) for x in received]:
        raise ValueError("the arrays after training are not of the shapes and dtypes of the received ones")
    with np.errstate(over="ignore", invalid="ignore"):
        moves = [_difference(a, x) for a, x in zip(new, received, strict=True)]
        norm = math.sqrt(sum(float(np.vdot(move, move)) for move in moves))  # inf or NaN if a value is, or too large
    if not math.isfinite(norm):
        log.warning("training ended in values that are not finite: noise alone is sent")
        return [np.zeros(move.shape) for move in moves]
    # The norm itself is rounded: stay below the clip by more than that can be.
    scale = min(1.0, clip / norm * (1 - 1e-9)) if norm else 1.0
    return [np.asarray(move * scale) for move in moves]


def _answer(message: Message, context: Context, call_next: ClientAppCallable, policy: Policy) -> Message:
    kind = message.metadata.message_type.partition(".")[0]
    if kind == "train":
        return _train(message, context, call_next, policy)
    if kind == "evaluate":
        return _evaluate(message, context, call_next, policy)
    return call_next(message, context)


def _train(message: Message, context: Context, call_next: ClientAppCallable, policy: Policy) -> Message:
    received, config = wire.read(message) if policy.dp else ([], message.content.config_records[wire.CONFIG])
    needs = config.get(wire.NEEDS)
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    arrays, allowed, told = reply.content.array_records[wire.ARRAYS], set(wire.TRAIN_FACTS), {}
    if policy.minimal:
        allowed = {key for name, key in wire.ASKABLE.items() if isinstance(needs, list) and name in needs}
    if policy.dp and policy.ledger:
        arrays = wire.record(noised(received, wire.arrays_of(arrays), policy.dp))
        told[wire.DP_EPSILON] = policy.ledger.record(policy.dp.noise, policy.dp.delta).epsilon
        allowed -= _OF_THE_DATA
    reply.content = RecordDict({wire.ARRAYS: arrays, wire.METRICS: _facts(reply, allowed, told)})
    return reply


def _evaluate(message: Message, context: Context, call_next: ClientAppCallable, policy: Policy) -> Message:
    if policy.dp:
        return _failure(message, NO_EVALUATION)
    reply = call_next(message, context)
    if not reply.has_error():
        allowed = set(_MINIMAL_EVALUATION if policy.minimal else wire.EVALUATE_FACTS)
        reply.content = RecordDict({wire.METRICS: _facts(reply, allowed, {})})
    return reply


def _facts(reply: Message, allowed: set[str], told: dict[str, float]) -> MetricRecord:
    said = reply.content.metric_records[wire.METRICS]
    return MetricRecord({name: value for name, value in said.items() if name in allowed} | told)


def _failure(message: Message, reason: str) -> Message:
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)


def _ledger_file(config: dict[str, Any]) -> Path:
    if named := config.get("dp-ledger"):
        return Path(str(named))
    if identity := config.get("identity"):
        return Path(f"{identity}.dp-ledger")
    raise UserError("dp counts what has left the client: name a file for it as dp-ledger in the node's configuration")


def _is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _difference(new: np.ndarray, received: np.ndarray) -> np.ndarray:
    if not _is_float(received):
        return np.zeros(received.shape)
    return np.asarray(new.astype(np.float64) - received.astype(np.float64))


def _normal(count: int, entropy: Callable[[int], bytes]) -> np.ndarray:
    """Standard normal values by Box and Muller 1958 (doi:10.1214/aoms/1177706645), from 8 random bytes each."""
    pairs = (count + 1) // 2
    bits = np.frombuffer(entropy(16 * pairs), np.uint64).reshape(2, pairs) >> np.uint64(11)
    radius = np.sqrt(-2 * np.log((bits[0] + np.uint64(1)) * 2.0**-53))  # of a number in (0, 1]
    angle = bits[1] * (2 * math.pi * 2.0**-53)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
