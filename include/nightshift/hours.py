"""How many engines are warm in which hour of the week, as far as it can be said before anybody asked.

    questions of an hour = a day's × share / busy hours, and the rest over the others
    engines              = ceil(questions an hour / 3600 × seconds an answer / 0.7), at least one

At 0.7 a question waits for 2.3 answers on the average of a single engine with Poisson arrivals (M/M/1: ρ / (1 - ρ)),
and for fewer with several. What the gateway counts is better than these answers, once there is some.
"""

from __future__ import annotations

import math

from nightshift.deployment import DAYS, Deployment, Traffic

BUSY_ENGINE = 0.7  # utilisation that is planned for


def hourly(traffic: Traffic) -> tuple[float, float]:
    """Questions of a busy hour and of a quiet one."""
    busy, questions = traffic.busy, traffic.requests_a_day
    if busy is None or busy.hours == 24:
        return questions / 24, questions / 24
    return questions * busy.share / busy.hours, questions * (1 - busy.share) / (24 - busy.hours)


def engines(questions_an_hour: float, seconds_an_answer: float) -> int:
    """Engines that answer so many questions an hour with room to spare; at least one."""
    return max(1, math.ceil(questions_an_hour / 3600 * seconds_an_answer / BUSY_ENGINE))


def warm(answers: Deployment) -> tuple[int, int]:
    """Engines that are warm in busy hours and in quiet ones; a batch leaves the busy hours to others."""
    busy, quiet = hourly(answers.traffic)
    if not answers.waits:
        return (0 if answers.traffic.busy else 1), 1
    return engines(busy, answers.traffic.seconds_an_answer), engines(quiet, answers.traffic.seconds_an_answer)


def week(answers: Deployment) -> list[int]:
    """Warm engines of every hour of a week, from Monday at midnight in night.timezone: 168 numbers."""
    at_busy, at_quiet = warm(answers)
    busy = answers.traffic.busy

    def busy_at(day: str, hour: int) -> bool:
        return busy is not None and day in busy.days and busy.from_hour <= hour < busy.to_hour

    return [at_busy if busy_at(day, hour) else at_quiet for day in DAYS for hour in range(24)]
