"""The run config: one frozen, typed tree. YAML only fills its values; unknown keys are mistakes.

Units are in the names (`_px`, `_days`, `_mb`). Dates are ISO 8601, UTC. Shapes are (y, x).
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from configs.paths import BELOW_SOURCE, CONNECT, READ, WRITE, is_uri


def _to_naive_utc(date: datetime) -> datetime:
    if not 1678 <= date.year <= 2261:  # what nanoseconds since 1970 in 64 bits reach; NumPy wraps round beyond it
        raise ValueError("a date between 1678 and 2261")
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date


def _as_path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a path of printable characters")
    return text


def _as_local(text: str) -> str:
    if is_uri(text):
        raise ValueError("a path on this machine (of all that a run reads and writes, only cube.uri may be s3://bucket/prefix)")
    return text


def _as_cube(text: str) -> str:
    if is_uri(text) and not text.startswith(("s3://", "file://")):
        raise ValueError("a folder, or s3://bucket/prefix")
    return text


def _named_band(band: Any) -> Any:
    return {"name": band} if isinstance(band, str) else band


Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
LocalPath = Annotated[str, AfterValidator(_as_path), AfterValidator(_as_local)]
InputPath = Annotated[LocalPath, READ]
OutputPath = Annotated[LocalPath, WRITE]
CubeUri = Annotated[str, AfterValidator(_as_path), AfterValidator(_as_cube)]
UtcDate = Annotated[datetime, AfterValidator(_to_naive_utc)]  # without a zone it is UTC already


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ---------------------------------------------------------------- source


class BandConfig(Strict):
    """A band of the cube. Physical value = stored * scale + offset."""

    name: Name
    source: str | None = Field(None, description="its name in the files, where that differs from `name`")
    scale: float | None = Field(None, description="default: the source's `scale`")
    offset: float | None = None
    nodata: float | None = None
    unit: str | None = None
    valid_range: tuple[float, float] | None = Field(None, description="inclusive, in stored values; outside is not valid")


class SourceDefaults(Strict):
    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        min_length=1, description="names, or mappings where a band differs from the defaults below"
    )
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = Field(None, description="stored value of missing pixels; default: what the files say")
    unit: str = ""
    valid_range: tuple[float, float] | None = None
    read_as: Literal["int16", "uint16", "uint8", "int32", "float32"] | None = Field(
        None, description="reinterpret the stored bits as this dtype of the same size (files whose dtype lies)"
    )
    crs: str | None = Field(None, description="where the files lack or lie about their CRS: EPSG code, PROJ string or WKT")
    transform: tuple[float, float, float, float, float, float] | None = Field(
        None, description="affine (a, b, c, d, e, f) from (column, row) of the upper-left pixel corner to x, y"
    )


class NetcdfSource(SourceDefaults):
    """A netCDF-4 / HDF5 cube with one variable per band and a time coordinate."""

    kind: Literal["netcdf"]
    path: InputPath
    time: str = "time"


class FolderSource(SourceDefaults):
    """A folder of GeoTIFF, JPEG2000 or HDF5 files, date (and band) in the file name.

    `pattern` is matched against the path below `path`: `{date:%Y%m%d}`, `{band}` and `*` (anything but `/`).
    A file that holds several bands has no `{band}`; `bands` then names them in file order.
    """

    kind: Literal["folder"]
    path: InputPath
    pattern: str
    variable: str | None = Field(None, description="data set inside each HDF5/netCDF file, e.g. image1/image_data")


class StackSource(SourceDefaults):
    """Multi-band rasters, one per band, whose raster bands are dates; the dates stand in a text file, one a line."""

    kind: Literal["stack"]
    path: InputPath = Field(description="folder")
    files: Annotated[dict[Name, LocalPath], BELOW_SOURCE] = Field(description="band -> file name below `path`")
    dates: Annotated[LocalPath, BELOW_SOURCE] = Field(
        description="text or CSV file below `path`; the first column that parses as dates is used"
    )


Source = Annotated[NetcdfSource | FolderSource | StackSource, Field(discriminator="kind")]


# ---------------------------------------------------------------- quality, grid, cube


class SclQuality(Strict):
    """Sentinel-2 scene classification (Sen2Cor L2A PUM, SCL classes 0-11)."""

    kind: Literal["scl"]
    band: str = "SCL"
    keep: list[int] = Field([4, 5, 6, 7], description="classes that may be used")
    away_px: int = Field(0, ge=0, description="and this many pixels away from every class that is not kept")


class LandsatQuality(Strict):
    """Landsat quality bits: Collection 1 `BQA` or Collection 2 `QA_PIXEL` (USGS LSDS-1619)."""

    kind: Literal["landsat"]
    band: str = "QA_PIXEL"
    collection: Literal[1, 2] = 2
    away_px: int = Field(0, ge=0)


class MaskQuality(Strict):
    """A plain mask: `valid_values` are the values of usable pixels."""

    kind: Literal["mask"]
    band: str
    valid_values: list[int] = [1]
    away_px: int = Field(0, ge=0)


Quality = Annotated[SclQuality | LandsatQuality | MaskQuality, Field(discriminator="kind")]


class GridConfig(Strict):
    """The cube's grid. Left out: the grid of the first readable scene."""

    crs: str
    resolution: float = Field(gt=0, description="pixel size in CRS units")
    bounds: tuple[float, float, float, float] = Field(description="left, bottom, right, top in CRS units")


class CubeConfig(Strict):
    uri: Annotated[CubeUri | None, WRITE] = Field(None, description="default: runs/NAME/cube; a path or s3://bucket/prefix")
    chunk_px: int = Field(256, ge=16)
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "nearest"
    on_other_grid: Literal["reproject", "refuse"] = Field(
        "refuse", description="what happens to a scene whose CRS or grid differs from the cube's"
    )
    same_date: Literal["refuse", "mosaic"] = "refuse"
    min_valid_fraction: float = Field(0.0, ge=0, le=1, description="scenes with fewer usable pixels are refused")
    memory_mb: int = Field(512, ge=64, description="bound for pixel buffers during ingest")
    workers: int | None = Field(None, ge=1, description="default: the number of cores")
    dask: Annotated[str | None, CONNECT] = Field(None, description="scheduler address; default: threads of this process")


# ---------------------------------------------------------------- samples


class VariableConfig(Strict):
    """What is forecast, in physical values: a band, or an index of bands."""

    name: Name
    formula: Literal["band", "normalized_difference", "ratio"] = "band"
    bands: list[Name] = Field(min_length=1, max_length=2)
    transform: Literal["none", "log1p"] = Field("none", description="applied before the network sees it, undone after")
    valid_range: tuple[float, float] | None = Field(
        None, description="in physical values; outside is not valid, and no forecast or bound leaves it"
    )


class StepsConfig(Strict):
    """How irregular dates become steps."""

    mode: Literal["observed", "regular"] = "observed"
    every_days: float | None = Field(None, gt=0, description="regular: distance of steps; minutes are fractions")
    tolerance_days: float | None = Field(None, gt=0, description="regular: how far the nearest date may lie")


class SamplesConfig(Strict):
    variables: list[VariableConfig] = Field(min_length=1)
    context: int = Field(10, ge=1)
    horizon: int = Field(5, ge=1)
    stride: int = Field(1, ge=1, description="steps between the issue dates of consecutive training windows")
    steps: StepsConfig = StepsConfig()
    min_valid_fraction: float = Field(0.1, ge=0, le=1, description="windows with a smaller share of usable targets are left out")


class SplitConfig(Strict):
    """Blocks in space with a buffer and a gap in time."""

    block_px: int = Field(64, ge=8)
    buffer_px: int = Field(2, ge=0)
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.2
    validation_from: UtcDate
    test_from: UtcDate
    gap_days: float = Field(0, ge=0)
    seed: int = 0


# ---------------------------------------------------------------- model, training


CorrectedBaseline = Literal["none", "persistence", "climatology", "decaying_anomaly"]


class ConvLSTMModel(Strict):
    """ConvLSTM encoder-forecaster that corrects a baseline; what `model` without a `kind` means."""

    kind: Literal["convlstm"] = "convlstm"
    hidden: list[int] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = 3
    peepholes: bool = False
    forget_bias: float = 1.0
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels dropped between layers in training")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the rule that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class ConvGRUModel(Strict):
    """ConvGRU encoder-forecaster that corrects a baseline: one state map a layer, half of the ConvLSTM's."""

    kind: Literal["convgru"]
    hidden: list[int] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = 3
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the rule that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


def _kind_of_model(value: Any) -> Any:
    return value.get("kind", "convlstm") if isinstance(value, dict) else getattr(value, "kind", None)


Model = Annotated[
    Annotated[ConvLSTMModel, Tag("convlstm")] | Annotated[ConvGRUModel, Tag("convgru")], Discriminator(_kind_of_model)
]


class TrainingConfig(Strict):
    epochs: int = Field(30, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    loss: Literal["mae", "mse", "huber"] = "huber"
    clip: float = Field(1.0, gt=0)
    patience: int = Field(6, ge=1)
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1)
    augment: bool = Field(True, description="turn and mirror training windows")
    centre_dates: bool = Field(
        False, description="do not learn what all pixels of a window share on a date beyond the guide (haze, a late spring)"
    )
    seed: int = 0


# ---------------------------------------------------------------- evaluation, prediction, run

Baseline = Literal["persistence", "climatology", "decaying_anomaly", "harmonic", "gradient_boosting"]


class EvaluationConfig(Strict):
    baselines: list[Baseline] = ["persistence", "climatology", "decaying_anomaly", "harmonic", "gradient_boosting"]
    must_beat: list[Baseline] = ["persistence", "climatology"]
    publish_if: Literal["smaller_error", "beyond_doubt"] = Field(
        "smaller_error",
        description="against must_beat: an error smaller by the margin, or in addition an interval of skill that lies above 0",
    )
    margin: Fraction = Field(
        0.01, description="smallest difference that matters, a share of the baseline's error; a smaller one is called equal"
    )
    confidence: Fraction = 0.95
    interval: Fraction = Field(0.9, description="nominal coverage of the prediction intervals")


MAX_SEAM = 0.1


class PredictionConfig(Strict):
    issue: UtcDate | Literal["latest"] = Field("latest", description="the last date that the forecast may look at")
    dates: list[UtcDate] | None = Field(None, description="what to forecast; default: the next observed or regular steps")
    tile_px: int = Field(256, ge=16)
    workers: int = Field(1, ge=1)
    max_seam: float = Field(
        MAX_SEAM,
        gt=0,
        # not written out while it is the default: products of networks with a finite halo do not depend on it
        exclude_if=lambda value: value == MAX_SEAM,
        description="networks without a finite halo: how far overlapping tiles may disagree, in half widths of the intervals",
    )


class Run(Strict):
    """One run: what comes in, what is learnt, what goes out."""

    name: Name
    task: Literal["forecast"] = "forecast"
    source: Source
    quality: Quality | None = None
    grid: GridConfig | None = None
    cube: CubeConfig = CubeConfig()
    samples: SamplesConfig
    split: SplitConfig
    model: Model = ConvLSTMModel()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prediction: PredictionConfig = PredictionConfig()
    runs: OutputPath = Field("runs", description="folder under which runs/NAME/ is made")
