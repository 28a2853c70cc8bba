"""What `benchmarks.results_forecasts` measures: ready-made configs of forecasts, as they are, with several seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A forecast of the results. config: name of the ready-made config. seeds: the first is shown, the others tell the spread."""

    title: str
    config: str
    about: str
    seeds: tuple[int, ...] = (0, 1, 2)


SERIES: dict[str, Series] = {
    "demo": Series(
        "Sentinel-2 NDVI of a Romanian forest, 10 m (the demo)",
        "demo",
        "140 dates 2015 to 2021, cloudy, unequal gaps; the test is 2020.",
    ),
    "sinop-17-years": Series(
        "MODIS NDVI of farmland near Sinop, 17 years",
        "sinop-17-years",
        "392 dates every 16 days; the split is that of `driftline init`, the network that of docs/design/021. The test is the "
        "last fifth of the dates.",
    ),
    "porto-dos-gauchos": Series(
        "MODIS NDVI of Porto dos Gauchos, six years",
        "porto-dos-gauchos-forecast",
        "137 dates every 16 days; as `driftline init` wrote the config. The test is the last fifth of the dates.",
    ),
    "sinop": Series(
        "MODIS NDVI near Sinop by date, one year",
        "sinop",
        "23 dates of a single year: no season occurs twice.",
    ),
    "radar": Series(
        "Radar rain of the Netherlands, five hours",
        "radar",
        "60 frames of 5 minutes at 2 km, mm in 5 minutes; the test is the last 75 minutes of one event.",
        seeds=(0, 1),
    ),
    "romania-20m": Series(
        "Sentinel-2 NDVI of the Romanian forest, 20 m, with the defaults",
        "romania-20m",
        "As the first one with other bands and a quarter of the pixels; nothing was chosen for it but the cloud mask.",
    ),
}
