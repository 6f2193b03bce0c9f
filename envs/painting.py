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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from rlplatform.types import Array

CHOICE = "MUJOCO_GL"
MAX_GEOMS = 10_000  # of a scene; the dog's has some hundreds
EGL_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT


class Painter:
    """Draws simulations of one model, or of copies of it with other numbers in it: what an episode moves, sizes or colours is
    read anew for every picture; meshes and textures are not.

    Its OpenGL context is opened at the first picture, and current in no thread between two of them, so that any thread may ask
    for the next, one at a time.
    """

    def __init__(self) -> None:
        self._gl: Any = None  # mujoco's context of the backend
        self._release: Any = None  # takes whichever context is current from this thread
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
        self._gl.make_current()
        self._drawing.free()
        self._gl.free()  # lets go of the thread, too
        self._gl = self._drawing = self._scene = None

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def _current(self, model: Any) -> Iterator[None]:
        if self._gl is None:
            self._open(model)
        else:
            self._gl.make_current()
        try:
            yield
        finally:
            self._release()

    def _open(self, model: Any) -> None:
        module = importlib.import_module(f"mujoco.{backend()}")
        self._release = _release_egl if backend() == "egl" else _release_osmesa
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
    """ "egl" or "osmesa": what pictures are drawn with in this process.

    Raises:
        ValueError: $MUJOCO_GL names something else, or neither works here; says why, and what would help.
    """
    named = os.environ.get(CHOICE, "").lower()
    if named not in ("", "egl", "osmesa"):
        raise ValueError(f"pictures are drawn without a display: ${CHOICE} has to be egl, osmesa or unset, got {named!r}")
    asked = (named,) if named else ("egl", "osmesa")
    missing = {name: {"egl": missing_for_egl, "osmesa": missing_for_osmesa}[name]() for name in asked}
    for name, why in missing.items():
        if not why:
            return name
    reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
    raise ValueError(f"nothing here can draw pictures of MuJoCo simulations ({reasons}). Debian's libegl1 or libosmesa6 would do")


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


def _release_egl() -> None:
    from mujoco.egl import EGL_DISPLAY
    from mujoco.egl import egl_ext as egl

    egl.eglMakeCurrent(EGL_DISPLAY, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)


def _release_osmesa() -> None:
    from OpenGL import GL, osmesa

    osmesa.OSMesaMakeCurrent(None, None, GL.GL_FLOAT, 0, 0)
