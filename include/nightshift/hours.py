"""How much is asked in which hour of the week, as far as it can be said before anybody asked.

    questions of an hour = a day's × share / busy hours, and the rest over the others
    engines              = ceil(questions an hour / 3600 × seconds an answer / 0.7), at least one

At 0.7 a question waits for 2.3 answers on the average of a single engine with Poisson arrivals (M/M/1: ρ / (1 - ρ)),
and for fewer with several. What the gateway counts is better than these answers, once there is some (scaling.py).
"""

from __future__ import annotations

import math

from nightshift.deployment import DAYS, Deployment, Traffic

BUSY_ENGINE = 0.7  # utilisation that is planned for
HOURS = 7 * 24  # of a week


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
    """The fewest engines and the most that are warm: those of the quiet hours and those of the busy ones.

    A batch has one: nobody waits for it.
    """
    if not answers.waits:
        return 1, 1
    traffic = answers.traffic
    found = [engines(one, traffic.seconds_an_answer) for one in hourly(traffic)]
    return min(found), max(found)


def week(traffic: Traffic) -> list[float]:
    """Questions of every hour of a week, from Monday at midnight in night.timezone: 168 numbers."""
    in_busy, in_quiet = hourly(traffic)
    busy = traffic.busy

    def busy_at(day: str, hour: int) -> bool:
        return busy is not None and day in busy.days and busy.from_hour <= hour < busy.to_hour

    return [in_busy if busy_at(day, hour) else in_quiet for day in DAYS for hour in range(24)]
