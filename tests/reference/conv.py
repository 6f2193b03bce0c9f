"""Convolution with "SAME" padding from its definition, in float64 loops. Imports nothing of ours."""

import math

import numpy as np


def same_conv(x, weight, bias, stride):
    """TensorFlow's rule: ceil(size / stride) outputs; the zeros needed are split evenly, the odd one after the end."""
    batch, _, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    top = max((rows - 1) * stride + kernel - height, 0) // 2
    left = max((columns - 1) * stride + kernel - width, 0) // 2
    out = np.zeros((batch, outputs, rows, columns))
    for r in range(rows):
        for c in range(columns):
            for i in range(kernel):
                for j in range(kernel):
                    y, z = r * stride + i - top, c * stride + j - left
                    if 0 <= y < height and 0 <= z < width:
                        out[:, :, r, c] += x[:, :, y, z] @ weight[:, :, i, j].T
    return out + bias[None, :, None, None]


def nature(obs, weights):
    """uint8 [B, stack, h, w] -> [B, features in the order h, w, channel]; weights: three (kernel, bias, stride)."""
    x = obs / 255.0
    for weight, bias, stride in weights:
        x = np.maximum(same_conv(x, weight, bias, stride), 0.0)
    return np.moveaxis(x, 1, 3).reshape(len(x), -1)
