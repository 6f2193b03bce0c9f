"""One step of the games of classic control whose dynamics Gymnasium does not let one change, from the definition, in float64."""

import numpy as np


def acrobot(state, torque, gravity, length):
    """Sutton and Barto's double pendulum (their book's equations), masses and moments of inertia 1, centres of mass at the links' half:
    one fourth-order Runge-Kutta step of 0.2 s. state: theta1, theta2 and their velocities."""
    m1 = m2 = inertia1 = inertia2 = 1.0
    l1, lc1, lc2 = length, length / 2, length / 2

    def derivative(s):
        theta1, theta2, dtheta1, dtheta2 = s
        d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * np.cos(theta2)) + inertia1 + inertia2
        d2 = m2 * (lc2**2 + l1 * lc2 * np.cos(theta2)) + inertia2
        phi2 = m2 * lc2 * gravity * np.cos(theta1 + theta2 - np.pi / 2)
        phi1 = (
            -m2 * l1 * lc2 * dtheta2**2 * np.sin(theta2)
            - 2 * m2 * l1 * lc2 * dtheta2 * dtheta1 * np.sin(theta2)
            + (m1 * lc1 + m2 * l1) * gravity * np.cos(theta1 - np.pi / 2)
            + phi2
        )
        ddtheta2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * dtheta1**2 * np.sin(theta2) - phi2) / (
            m2 * lc2**2 + inertia2 - d2**2 / d1
        )
        return np.array([dtheta1, dtheta2, -(d2 * ddtheta2 + phi1) / d1, ddtheta2])

    s, h = np.asarray(state, np.float64), 0.2
    k1 = derivative(s)
    k2 = derivative(s + h / 2 * k1)
    k3 = derivative(s + h / 2 * k2)
    k4 = derivative(s + h * k3)
    s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    s[:2] = (s[:2] + np.pi) % (2 * np.pi) - np.pi
    return np.clip(s, [-np.pi, -np.pi, -4 * np.pi, -9 * np.pi], [np.pi, np.pi, 4 * np.pi, 9 * np.pi])


def mountain_car(state, force, gravity):
    """state: position, speed; `force` what the engine adds to the speed."""
    x, speed = state
    speed = np.clip(speed + force - gravity * np.cos(3 * x), -0.07, 0.07)
    x = np.clip(x + speed, -1.2, 0.6)
    return np.array([x, 0.0 if x == -1.2 and speed < 0 else speed])


def cartpole(state, force, gravity, length):
    """Barto, Sutton and Anderson's cart (1 kg) and pole (0.1 kg, half as long as `length` to its centre of mass): one Euler step of 0.02 s.
    state: x, its velocity, theta, its velocity."""
    x, dx, theta, dtheta = state
    cart, pole, half = 1.0, 0.1, length / 2
    inertial = (force + pole * half * dtheta**2 * np.sin(theta)) / (cart + pole)
    ddtheta = (gravity * np.sin(theta) - np.cos(theta) * inertial) / (
        half * (4 / 3 - pole * np.cos(theta) ** 2 / (cart + pole))
    )
    ddx = inertial - pole * half * ddtheta * np.cos(theta) / (cart + pole)
    return np.array([x + 0.02 * dx, dx + 0.02 * ddx, theta + 0.02 * dtheta, dtheta + 0.02 * ddtheta])


def pendulum(state, torque, gravity, length):
    """A rod of 1 kg: state: angle from upright, its velocity; one semi-implicit Euler step of 0.05 s."""
    angle, velocity = state
    acceleration = 3 * gravity / (2 * length) * np.sin(angle) + 3 / length**2 * torque
    velocity = np.clip(velocity + 0.05 * acceleration, -8.0, 8.0)
    return np.array([angle + 0.05 * velocity, velocity])
