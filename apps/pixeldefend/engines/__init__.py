"""Ways to the same purified image, which differ in speed alone."""

from .cached import cached as cached
from .fixed_point import fixed_point as fixed_point
from .naive import naive as naive
from .row import row as row
