"""From a sweep's table to the lam to take, with its interval, its reason and its warnings; knows no model."""

from deradiff.recommend.alarm import Alarm as Alarm
from deradiff.recommend.alarm import alarms as alarms
from deradiff.recommend.ask import Ask as Ask
from deradiff.recommend.ask import Guard as Guard
from deradiff.recommend.ask import ask as ask
from deradiff.recommend.beware import FEW_PROMPTS as FEW_PROMPTS
from deradiff.recommend.choose import recommend as recommend
from deradiff.recommend.choose import taken as taken
from deradiff.recommend.curves import Curve as Curve
from deradiff.recommend.curves import equivalent_beta as equivalent_beta
from deradiff.recommend.curves import paired_curve as paired_curve
from deradiff.recommend.intervals import Interval as Interval
from deradiff.recommend.intervals import interval as interval
from deradiff.recommend.intervals import win_rate as win_rate
from deradiff.recommend.recommendation import Recommendation as Recommendation
