"""Two data sets for the tour of jaxopt_tour, as files: `jaxopt_tour.problems.data.datasets` reads and checks them."""
