"""Deep Q-learning on a tiny built-in world: each update is a step on a batch made on the spot.

    KERAS_BACKEND=jax python examples/dqn.py

The world is a corridor; the way out is at its right end, and each step costs a little.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import lossledger

EPISODES = int(os.environ.get("EPISODES", "60"))
LENGTH, ACTIONS, DISCOUNT = 8, 2, 0.95


class Corridor:
    """Positions 0 to LENGTH - 1; action 0 goes left, 1 goes right."""

    def reset(self) -> np.ndarray:
        self.place = 0
        return self.seen()

    def seen(self) -> np.ndarray:
        return np.eye(LENGTH, dtype="float32")[self.place]

    def act(self, action: int) -> tuple[np.ndarray, float, bool]:
        self.place = max(0, self.place + (1 if action else -1))
        out = self.place == LENGTH - 1
        return self.seen(), 1.0 if out else -0.01, out


def main() -> None:
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    model = keras.Sequential(
        [keras.Input((LENGTH,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(ACTIONS)]
    )
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    values = lambda states: keras.ops.convert_to_numpy(model(np.stack(states)))  # noqa: E731
    world, memory, lengths = Corridor(), [], []
    # An epoch an episode; what it trains on comes from the memory.
    room = np.zeros((1, LENGTH), "float32"), np.zeros((1, ACTIONS), "float32")
    for episode in lossledger.Loop(model, *room, epochs=EPISODES, verbose=0):
        state, out, steps = world.reset(), False, 0
        while not out and steps < 50:
            greedy = random.random() > max(0.05, 1 - 3 * episode.number / EPISODES)
            action = int(np.argmax(values([state])[0])) if greedy else int(random.integers(2))
            after, reward, out = world.act(action)
            memory.append((state, action, reward, after, out))
            state, steps = after, steps + 1
            if len(memory) >= 32 and steps % 4 == 0:
                batch = [memory[i] for i in random.integers(len(memory), size=32)]
                states, actions, rewards, afters, outs = zip(*batch, strict=True)
                targets = values(states)
                best = np.array(rewards) + DISCOUNT * (1 - np.array(outs)) * values(afters).max(1)
                targets[np.arange(32), actions] = best
                episode.step(np.stack(states), targets)
        lengths.append(steps)
        loss = f"{episode.losses.mean():.5f}" if len(episode.losses) else "none yet"
        if episode.number % max(1, EPISODES // 10) == 0:
            print(f"episode {episode.number:3d}   {steps:2d} steps   raw losses' mean {loss}")
    print(f"last episodes took {np.mean(lengths[-5:]):.1f} steps; {LENGTH - 1} is the least")


if __name__ == "__main__":
    main()
