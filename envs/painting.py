"""Pictures of MuJoCo simulations on machines without a display: through EGL (a GPU, or Mesa on the CPU) or OSMesa (the CPU).

$MUJOCO_GL chooses between "egl" and "osmesa"; left unset, the first that works is taken. Pixels are those of one of them on one
machine: drivers round colours differently.
"""

import atexit
import ctypes
import ctypes.util
import functools
import importlib
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mujoco  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np

from rlplatform.types import Array

CHOICE = "MUJOCO_GL"
MAX_GEOMS = 10_000  # of a scene; the dog's has some hundreds
EGL_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT


class Painter:
    """Draws simulations of one model, or of copies of it with other numbers in it: what an episode moves, sizes or colours is
    read anew for every picture; meshes and textures are not.

    Its OpenGL context is opened at the first picture, and current in no thread between two of them, so that any thread may ask
    for the next, one at a time. With EGL, what somebody else had made current is current again
    afterwards.
    """

    def __init__(self) -> None:
        self._gl: Any = None  # mujoco's context of the backend
        self._drawing: Any = None  # mujoco.MjrContext: meshes and textures
        self._scene: Any = None

    def picture(self, model: Any, data: Any, camera: int, height: int, width: int) -> Array:
        """What the model's camera sees, [height, width, 3] uint8 RGB.

        Raises:
            ValueError: nothing here can draw (with what is missing), no such camera, or larger than the model's buffer.
        """
        if not 0 <= camera < model.ncam:
            raise ValueError(f"the model has {model.ncam} cameras, there is no camera {camera}")
        buffer = model.vis.global_
        if not (1 <= height <= buffer.offheight and 1 <= width <= buffer.offwidth):
            raise ValueError(
                f"a picture is at most {buffer.offheight} pixels high and {buffer.offwidth} wide, got {height} x {width}"
            )
        out = np.empty((height, width, 3), np.uint8)
        with self._current(model):
            view = mujoco.MjvCamera()
            view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
            mujoco.mjv_updateScene(
                model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), view, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            area = mujoco.MjrRect(0, 0, width, height)
            mujoco.mjr_render(area, self._scene, self._drawing)
            mujoco.mjr_readPixels(out, None, area, self._drawing)
        return out[::-1].copy()  # OpenGL counts rows from below

    def close(self) -> None:
        if self._gl is None:
            return
        with self._current(None):
            self._drawing.free()
            self._gl.free()
            self._gl = self._drawing = self._scene = None

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def _current(self, model: Any) -> Iterator[None]:
        name = backend()
        module = importlib.import_module(f"mujoco.{name}")  # it tells PyOpenGL what it is used for
        held: Callable[[], Any]
        give_back: Callable[[Any], None]
        held, give_back = (_held_egl, _give_back_egl) if name == "egl" else (_held_osmesa, _give_back_osmesa)
        before = held()
        try:
            if self._gl is None:
                self._open(module, model)
            else:
                self._gl.make_current()
            yield
        finally:
            give_back(before)

    def _open(self, module: Any, model: Any) -> None:
        gl = module.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        gl.make_current()
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._gl = gl
        if not _OPEN:
            atexit.register(_close_all)  # after mujoco registered the end of EGL itself, hence run before it
        _OPEN.add(self)


_OPEN: "weakref.WeakSet[Painter]" = weakref.WeakSet()


def _close_all() -> None:
    for painter in list(_OPEN):
        painter.close()


@functools.cache
def backend() -> str:
    """What pictures are drawn with in this process, "egl" or "osmesa".

    Raises:
        ValueError: $MUJOCO_GL names something else, or neither works here; says why, and what would help.
    """
    named = os.environ.get(CHOICE, "").lower()
    if named not in ("", "egl", "osmesa"):
        raise ValueError(f"pictures need no display here: ${CHOICE} has to be egl, osmesa or unset, got {named!r}")
    asked = (named,) if named else ("egl", "osmesa")
    missing = {name: {"egl": missing_for_egl, "osmesa": missing_for_osmesa}[name]() for name in asked}
    for name, why in missing.items():
        if not why:
            return name
    reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
    raise ValueError(f"nothing here can draw MuJoCo's pictures ({reasons}). Debian's libegl1 or libosmesa6 would do")


def missing_for_egl() -> str:
    """Why EGL cannot draw here; "" where it can. Asks the library itself: once PyOpenGL is loaded for EGL, a process cannot
    change to OSMesa any more."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "libEGL.so.1 is not installed"
    find = egl.eglGetProcAddress
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    query, display_of = find(b"eglQueryDevicesEXT"), find(b"eglGetPlatformDisplayEXT")
    if not query or not display_of:
        return "libEGL.so.1 cannot list devices"
    devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
    ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query)(
        len(devices), ctypes.cast(devices, ctypes.c_void_p), ctypes.addressof(count)
    )
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(display_of)
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    for device in devices[: count.value]:
        display = get(EGL_PLATFORM_DEVICE, device, None)
        if display and egl.eglInitialize(display, None, None):
            return ""
    return f"none of its {count.value} devices can be opened; Mesa's libegl-mesa0 has one on the CPU"


def missing_for_osmesa() -> str:
    """Why OSMesa cannot draw here; "" where it can."""
    return "" if ctypes.util.find_library("OSMesa") else "libOSMesa is not installed"


def _held_egl() -> Any:
    """What is current in this thread."""
    from mujoco.egl import egl_ext as egl  # type: ignore[import-untyped,import-not-found,unused-ignore]

    surfaces = egl.eglGetCurrentSurface(egl.EGL_DRAW), egl.eglGetCurrentSurface(egl.EGL_READ)
    return egl.eglGetCurrentDisplay(), *surfaces, egl.eglGetCurrentContext()


def _give_back_egl(before: Any) -> None:
    from mujoco import egl as mujoco_egl  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from mujoco.egl import egl_ext as egl  # type: ignore[import-untyped,import-not-found,unused-ignore]

    display, draw, read, context = before
    if context:
        egl.eglMakeCurrent(display, draw, read, context)
    else:
        nothing = egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT
        egl.eglMakeCurrent(mujoco_egl.EGL_DISPLAY, *nothing)


def _held_osmesa() -> None:
    """None: the buffer that a context draws into cannot be asked for, so no context can be made current again."""


def _give_back_osmesa(before: None) -> None:
    from OpenGL import GL, osmesa  # type: ignore[import-untyped,import-not-found,unused-ignore]

    osmesa.OSMesaMakeCurrent(None, None, GL.GL_FLOAT, 0, 0)
