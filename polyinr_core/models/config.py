"""The configuration of a generator: its sizes and its form."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from polyinr_core.errors import ConfigError

Form = Literal["release", "paper"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes and form of a generator; it has no resolution, as coordinates are an argument.

    Form `release` is the network that the authors published; `paper` is Eq. 3 to the letter: affine parameters are
    linear in w, coordinates are not transformed from level to level, the modulation has no activation, and nothing is
    clamped. `table_rows` is the size of the class embedding, 1000 in all official files. Raises ConfigError.
    """

    form: Form = "release"
    levels: int = 10
    channels: int = 1024
    z_dim: int = 64
    w_dim: int = 512
    classes: int = 0  # 0: unconditional
    table_rows: int | None = None  # None: as many as classes
    table_dim: int = 320
    mapping_layers: int = 2
    clamp: float | None = 256.0  # of the features of each level, in the release's form

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ConfigError(f"form {self.form!r} is unknown; choose from {', '.join(get_args(Form))}")
        for name in ("levels", "channels", "z_dim", "w_dim", "table_dim", "mapping_layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= 65536:
                raise ConfigError(f"{name} {value!r} is outside 1-65536")
        if not isinstance(self.classes, int) or not 0 <= self.classes <= 2**20:
            raise ConfigError(f"classes {self.classes!r} is outside 0-{2**20} (0: unconditional)")
        if self.table_rows is None:
            object.__setattr__(self, "table_rows", self.classes)
        if not isinstance(self.table_rows, int) or not self.classes <= self.table_rows <= 2**20:
            raise ConfigError(f"a class table of {self.table_rows!r} rows cannot hold {self.classes} classes")
        if self.form == "paper":
            object.__setattr__(self, "clamp", None)
        elif self.clamp is not None and not (type(self.clamp) in (int, float) and 0 < self.clamp < 1e30):
            raise ConfigError(f"clamp {self.clamp!r} is not a number above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, as stored in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote; a missing or unknown field is a ConfigError."""
        expected = {field.name for field in fields(cls)}
        if wrong := expected.symmetric_difference(values):
            raise ConfigError(f"generator configuration: missing or unknown fields {', '.join(sorted(wrong))}")
        return cls(**values)


PRESETS = {
    "imagenet": GeneratorConfig(channels=1024, classes=1000),
    "ffhq": GeneratorConfig(channels=512, table_rows=1000),  # the release keeps the table it never reads
    "small": GeneratorConfig(channels=128, w_dim=128),
    "tiny": GeneratorConfig(levels=6, channels=64, w_dim=64),
}
