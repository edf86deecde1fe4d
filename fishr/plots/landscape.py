"""The figures of a landscape, from its file and never from live models."""

from pathlib import Path

from matplotlib.figure import Figure

from fishr.errors import InputError
from fishr.landscape import Surface, load_surface
from fishr.plots.landscape_film import save_film
from fishr.plots.landscape_lines import interpolation_figure, line_figure
from fishr.plots.landscape_planes import contour_figure, level_set_figure
from fishr.plots.landscape_surfaces import surface_figure
from fishr.plots.style import save

_NAMES = ("contours", "inconsistency", "surface", "")


def save_landscape_figures(path: Path, epsilon: float = 0.1) -> list[Path]:
    """Draw a surface file's pictures beside it, ``FILE-contours.png`` or ``FILE.png``; earlier ones give way.

    Of a plane: contours of each domain on shared levels, the level sets R_e = R_e* ± ε in one picture, surfaces in
    three dimensions, and a GIF if it has frames. Of lines: risks with bands, or with the barrier.

    Args:
        path: of the HDF5 file.
        epsilon: ε of the level sets, loss.

    Returns:
        The pictures' paths.

    Raises:
        InputError: no such surface.
        RunFailed: one could not be written.
    """
    surface = load_surface(path)
    drawn = [save(figure, picture_of(path, name)) for name, figure in _figures(surface, epsilon).items()]
    if surface.frames is not None:
        drawn.append(save_film(surface, path.with_suffix(".gif")))
    return drawn


def check_pictures(path: Path) -> None:
    """Refuse a name whose pictures are there though its file is not: they are somebody else's.

    Args:
        path: of the surface file.

    Raises:
        InputError: it names the picture.

    Example:
        >>> check_pictures(Path("no-such-folder") / "landscape.h5")
    """
    if path.exists():
        return
    for picture in (*(picture_of(path, name) for name in _NAMES), path.with_suffix(".gif")):
        if picture.exists():
            raise InputError(f"{picture}: exists already, without {path.name}; choose another name, or remove it")


def picture_of(path: Path, name: str) -> Path:
    """Where a picture of a surface file lies; that of lines, the only one, has the file's own name.

    Example:
        >>> picture_of(Path("run/landscape-random.h5"), "contours").as_posix()
        'run/landscape-random-contours.png'
    """
    return path.with_name(f"{path.stem}-{name}.png") if name else path.with_suffix(".png")


def _figures(surface: Surface, epsilon: float) -> dict[str, Figure]:
    if surface.directions.kind == "interpolation":
        return {"": interpolation_figure(surface)}
    if not surface.plane:
        return {"": line_figure(surface)}
    figures = {"contours": contour_figure(surface)}
    # A level set needs a plane of some extent, a surface as well.
    if min(map(len, surface.axes)) > 1:
        figures |= {"inconsistency": level_set_figure(surface, epsilon), "surface": surface_figure(surface)}
    return figures
