"""Routing: what each parameter is, by its name, by its use in a function, or as given."""

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_name.routes import ByName, routes_by_name
from jaxopt_tour.routing.by_use.trace import from_function
from jaxopt_tour.routing.by_use.user_rules import register_kernel
from jaxopt_tour.routing.resolution import Routing, override, resolve
from jaxopt_tour.routing.route import ROLES, Pieces, Role, Route, Routes
from jaxopt_tour.routing.table import RoutingTable, routing_table

__all__ = [
    "ROLES",
    "ByName",
    "MatrixAxes",
    "Pieces",
    "Role",
    "Route",
    "Routes",
    "Routing",
    "RoutingTable",
    "from_function",
    "override",
    "register_kernel",
    "resolve",
    "routes_by_name",
    "routing_table",
]
