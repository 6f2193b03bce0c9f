"""Catch, written from bsuite's description with plain lists. Draws nothing: the ball's column is given."""


class Catch:
    def __init__(self, rows, columns, ball):
        self.rows, self.columns = rows, columns
        self.ball = [0, ball]
        self.paddle = [rows - 1, columns // 2]

    def step(self, action):
        """(reward, is the game over)."""
        wanted = self.paddle[1] + {0: -1, 1: 0, 2: 1}[action]
        if 0 <= wanted < self.columns:
            self.paddle[1] = wanted
        self.ball[0] += 1
        if self.ball[0] < self.paddle[0]:
            return 0.0, False
        return (1.0 if self.ball == self.paddle else -1.0), True

    def board(self):
        cells = [[0] * self.columns for _ in range(self.rows)]
        for row, column in (self.ball, self.paddle):
            cells[row][column] = 255
        return cells
