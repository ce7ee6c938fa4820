"""polyinr compare: the differences between two results, and which of their metrics can be compared."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console
from polyinr_cli.evaluate_options import load_results
from polyinr_cli.options import Json, Quiet, Verbose

if TYPE_CHECKING:
    from polyinr_core.evaluation.compare import Comparison, Difference, Fact, Grade, Verdict
    from polyinr_core.evaluation.results import Result

WIDTH = 100  # columns
WITHIN = "Within: the difference that the sampling, the counts or rounding can explain."
NOT_SAMPLED = ("params", "speed")
SETS = ("fakes", "reals")
HEADINGS: "dict[Grade, str]" = {
    "subject": "What the comparison is about",
    "other": "What makes the values different measurements",
    "unknown": "Differences of unknown effect",
    "bias": "What shifts the values",
    "spread": "What changes the values as other seeds would",
    "rounding": "What changes the last digits",
}


def compare(
    first: Annotated[
        Path,
        typer.Argument(metavar="A.json", show_default=False, help="A result of polyinr evaluate -o; - is stdin."),
    ],
    second: Annotated[Path, typer.Argument(metavar="B.json", show_default=False, help="Another result.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Explain how two results differ, what that does to their metrics, and which can be compared.

    Example: polyinr compare ours.json theirs.json
    """
    from polyinr_core.evaluation.compare import compare

    a, b = load_results([first, second])
    comparison = compare(a, b)
    if as_json:
        console.json_line(_facts_of(a, b, comparison))
        return
    for line in _lines_of(a, b, comparison):
        console.line(line)


def _facts_of(a: "Result", b: "Result", comparison: "Comparison") -> dict[str, Any]:
    """Return a comparison as a JSON object."""
    return {
        "a": a.name,
        "b": b.name,
        "differences": [
            {
                "field": ".".join(difference.field),
                "a": difference.values[0],
                "b": difference.values[1],
                "effects": [
                    {"kind": fact.grade, "effect": fact.effect, "source": fact.source, "metrics": list(names)}
                    for fact, names in difference.effects.items()
                ],
            }
            for difference in comparison.differences
        ],
        "metrics": {
            name: {
                "a": verdict.values[0],
                "b": verdict.values[1],
                "standing": verdict.standing,
                "within": verdict.within,
                "because": list(verdict.because),
                "compares": list(verdict.compares),
                "better": None if verdict.better is None else "ab"[verdict.better],
            }
            for name, verdict in comparison.verdicts.items()
        },
        "only_a": list(comparison.alone[0]),
        "only_b": list(comparison.alone[1]),
    }


def _lines_of(a: "Result", b: "Result", comparison: "Comparison") -> list[str]:
    """Return a comparison as text."""
    lines = [f"A  {_about(a)}", f"B  {_about(b)}"]
    lines += _differences_of(comparison)
    lines += ["", "Metrics"]
    equal = [verdict.name for verdict in comparison.verdicts.values() if _is_equal(verdict)]
    for verdict in comparison.verdicts.values():
        if verdict.name not in equal:
            lines += _wrapped(f"{verdict.name}: {_sentence_of(verdict)}", first="  ", others="      ")
    if equal:
        lines += _wrapped(f"Equal in both: {', '.join(equal)}.", first="  ", others="      ")
    if not comparison.verdicts:
        lines.append("  The results have no metric in common.")
    for which, names in zip("AB", comparison.alone, strict=True):
        if names:
            lines += _wrapped(f"Only in {which}: {', '.join(names)}.", first="  ", others="      ")
    if any(verdict.within is not None for verdict in comparison.verdicts.values()):
        lines += ["", *_wrapped(WITHIN)]
    return lines


def _about(result: "Result") -> str:
    """Return a line about a result: its name, the generated images and the real ones."""
    fields = result.fields
    fakes, reals = ({name: fields.get((part, name)) for name in ("name", "count", "psi")} for part in SETS)
    words = [str(fakes["name"])]
    words += [f"psi {fakes['psi']}"] if fakes["psi"] is not None else []
    words += [f"{fakes['count']} images"] if fakes["count"] else []
    words += [f"{fields['resolution',]} px"] if ("resolution",) in fields else []
    against = f", against {reals['name']}" + (f" ({reals['count']})" if reals["count"] else "") if reals["name"] else ""
    return f"{result.name}: {', '.join(words)}{against}"


def _differences_of(comparison: "Comparison") -> list[str]:
    """Return the differences by their effect, each effect once."""
    if not comparison.differences:
        return ["", "The cards agree in everything that the metrics depend on."]
    by_grade: dict[Grade, dict[str, list[Difference]]] = {}
    for difference in comparison.differences:
        for fact, names in difference.effects.items():
            by_grade.setdefault(fact.grade, {}).setdefault(_effect_of(fact, names, comparison), []).append(difference)
    lines = []
    for grade, heading in HEADINGS.items():
        if grade not in by_grade:
            continue
        lines += ["", heading]
        for effect, differences in by_grade[grade].items():
            for difference in differences:
                one, other = difference.values
                field = ".".join(difference.field)
                lines += _wrapped(f"{field}: A {one}, B {other}", first="  ", others="      ")
            lines += _wrapped(effect, first="      ", others="      ")
    idle = [".".join(difference.field) for difference in comparison.differences if not difference.effects]
    if idle:
        lines += ["", *_wrapped(f"Differences that affect none of the metrics below: {', '.join(idle)}.")]
    return lines


def _effect_of(fact: "Fact", names: tuple[str, ...], comparison: "Comparison") -> str:
    """Return an effect with its source, preceded by the metrics that it affects unless it affects all."""
    metrics = "" if len(names) == len(comparison.verdicts) else f"{', '.join(names)}: "
    return f"{metrics}{fact.effect}" + (f" ({fact.source})" if fact.source else "")


def _is_equal(verdict: "Verdict") -> bool:
    return verdict.standing == "comparable" and verdict.values[0] == verdict.values[1]


def _sentence_of(verdict: "Verdict") -> str:
    """Return in a sentence whether two values can be compared, and which is better."""
    from polyinr_core.metrics.registry import better, family_of

    a, b = (f"{value:.0f}" if value >= 1000 and value.is_integer() else f"{value:.5g}" for value in verdict.values)
    values = f"A {a}, B {b}"
    because = _listed(verdict.because)
    if verdict.standing == "not comparable":
        return f"{values}: not comparable, because of {because}."
    if verdict.standing == "unknown":
        return f"{values}: it is unknown whether they are comparable, because of {because}."
    within = "" if verdict.within is None else f" within {verdict.within:.3g}"
    limits = ", because of" if within else " except for"
    comparable = f"comparable{within}" + (f"{limits} {because}" if because else "")
    if verdict.better is not None:
        gap = f"{abs(verdict.values[0] - verdict.values[1]):.3g}"
        outcome = f"{'AB'[verdict.better]} is better by {gap}"
        if verdict.within is None and family_of(verdict.name) not in NOT_SAMPLED:
            outcome += ", which may be chance: --bootstrap 100 gives intervals"
    elif verdict.values[0] == verdict.values[1]:
        outcome = "they are equal"
    elif better(verdict.name) is None:
        outcome = "it is unknown whether lower or higher is better"
    else:
        outcome = "the difference is within that limit"
    more = f" Together, {_listed(verdict.compares)} differ." if len(verdict.compares) > 1 else ""
    return f"{values}: {comparable}; {outcome}.{more}"


def _listed(words: tuple[str, ...]) -> str:
    """Return words as an enumeration."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _wrapped(text: str, *, first: str = "", others: str = "") -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
