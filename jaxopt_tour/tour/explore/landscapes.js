// The landscapes, as the library has them: value and gradient. What is drawn, and where, comes from the library.
const Landscapes = (() => {
  const { PI, E, cos, sin, exp, sqrt } = Math;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const beale = (x, y) => [1, 2, 3].map((k) => [1.5, 2.25, 2.625][k - 1] - x + x * y ** k);
  // 1/2 tr(E^T Q E) with E = W - W*, of 2x2 matrices row by row.
  const regression = ({ gram: q, origin }) => {
    const slope = (w) => {
      const e = w.map((each, i) => each - origin[i]);
      return [q[0] * e[0] + q[1] * e[2], q[0] * e[1] + q[1] * e[3], q[2] * e[0] + q[3] * e[2], q[2] * e[1] + q[3] * e[3]];
    };
    return { f: (w) => 0.5 * sum(slope(w).map((each, i) => each * (w[i] - origin[i]))), gradient: slope };
  };

  const functions = {
    "styblinski-tang": { f: (p) => 0.5 * sum(p.map((x) => x ** 4 - 16 * x * x + 5 * x)), gradient: (p) => p.map((x) => 2 * x ** 3 - 16 * x + 2.5) },
    rosenbrock: {
      f: ([x, y]) => (1 - x) ** 2 + 100 * (y - x * x) ** 2,
      gradient: ([x, y]) => [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)],
    },
    beale: {
      f: ([x, y]) => sum(beale(x, y).map((r) => r * r)),
      gradient: ([x, y]) => {
        const r = beale(x, y);
        return [sum(r.map((each, i) => 2 * each * (y ** (i + 1) - 1))), sum(r.map((each, i) => 2 * each * x * (i + 1) * y ** i))];
      },
    },
    himmelblau: {
      f: ([x, y]) => (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2,
      gradient: ([x, y]) => {
        const a = x * x + y - 11, b = x + y * y - 7;
        return [4 * x * a + 2 * b, 2 * a + 4 * y * b];
      },
    },
    rastrigin: {
      f: (p) => sum(p.map((x) => 10 + x * x - 10 * cos(2 * PI * x))),
      gradient: (p) => p.map((x) => 2 * x + 20 * PI * sin(2 * PI * x)),
    },
    ackley: {
      f: ([x, y]) => 20 + E - 20 * exp(-0.2 * sqrt((x * x + y * y) / 2)) - exp((cos(2 * PI * x) + cos(2 * PI * y)) / 2),
      gradient: ([x, y]) => {
        const root = sqrt((x * x + y * y) / 2), waves = exp((cos(2 * PI * x) + cos(2 * PI * y)) / 2);
        return [x, y].map((each) => (root ? (2 * each * exp(-0.2 * root)) / root : 0) + PI * sin(2 * PI * each) * waves);
      },
    },
    ravine: {
      f: ([x, y]) => 0.025 * (x + y) ** 2 + 2.5 * (y - x) ** 2,
      gradient: ([x, y]) => [0.05 * (x + y) - 5 * (y - x), 0.05 * (x + y) + 5 * (y - x)],
    },
    saddle: { f: ([x, y]) => 0.5 * x * x + 0.25 * y ** 4 - 0.5 * y * y, gradient: ([x, y]) => [x, y ** 3 - y] },
    quadratic: { f: ([x, y]) => 0.5 * (5 * x * x + 0.2 * y * y), gradient: ([x, y]) => [5 * x, 0.2 * y] },
  };

  // A landscape of the page: the function, and the way from coordinates to parameters and back.
  function make(data) {
    const { origin, first, second } = data.plane;
    const { f, gradient } = data.gram ? regression({ gram: data.gram, origin }) : functions[data.name];
    const along = (p, axis) => sum(p.map((each, i) => (each - origin[i]) * axis[i]));
    return {
      ...data, f, gradient,
      params: ([x, y]) => origin.map((each, i) => each + x * first[i] + y * second[i]),
      coordinates: (p) => [along(p, first), along(p, second)],
    };
  }

  return { make };
})();
