"""What scripted partners play."""

from envs.core.env import SEATS
from envs.scripted.play import play


def episodes(env, partner, count):
    return [play(env, dict.fromkeys(env.seats, partner), seed) for seed in range(count)]


def other(seat):
    return SEATS[1 - SEATS.index(seat)]
