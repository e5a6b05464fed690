// The rules, as the library has them: one function an optimizer, entry by entry, and Newton-Schulz for small matrices.
// A step takes the gradient g, the parameters x, the state s, the settings h and t (from 1); it returns the step d with
// x <- x - rate (d + weight_decay x), and what the page says about it. Rules with coupled L2 have the setting `l2`
// and no `weight_decay`.
const Rules = (() => {
  const zeros = (n) => new Array(n).fill(0);
  const average = (old, value, b) => old.map((each, i) => b * each + (1 - b) * value[i]);
  const squares = (g) => g.map((each) => each * each);
  const divide = (a, b) => (b === 0 ? 0 : a / b);
  const coupled = (g, x, h) => (h.l2 ? g.map((each, i) => each + h.l2 * x[i]) : g);
  const length = (a) => Math.hypot(...a);

  const step = {
    sgd: (g) => ({ d: g, before: g }),
    momentum(g, s, h) {
      s.m = s.m.map((m, i) => h.beta * m + g[i]);
      return { d: s.m, before: s.m };
    },
    nesterov(g, s, h) {
      s.m = s.m.map((m, i) => h.beta * m + g[i]);
      const d = g.map((each, i) => each + h.beta * s.m[i]);
      return { d, before: d };
    },
    adagrad(g, s, h) {
      s.v = s.v.map((v, i) => v + g[i] * g[i]);
      return scaled(g, s.v, h.eps);
    },
    adadelta(g, s, h) {
      s.v = average(s.v, squares(g), h.beta);
      const d = g.map((each, i) => each * divide(Math.sqrt(s.d[i] + h.eps), Math.sqrt(s.v[i] + h.eps)));
      const numerator = s.d.map((each) => Math.sqrt(each + h.eps));
      s.d = average(s.d, squares(d), h.beta);
      return { d, before: g, divisors: s.v.map((v) => Math.sqrt(v + h.eps)), numerator };
    },
    rmsprop(g, s, h) {
      s.v = average(s.v, squares(g), h.beta);
      return scaled(g, s.v, h.eps);
    },
    "rmsprop-centered"(g, s, h) {
      s.v = average(s.v, squares(g), h.beta);
      s.m = average(s.m, g, h.beta);
      return scaled(g, s.v.map((v, i) => Math.max(v - s.m[i] * s.m[i], 0)), h.eps);
    },
    signsgd: (g) => ({ d: g.map(Math.sign), before: g }),
    signum(g, s, h) {
      s.m = average(s.m, g, h.beta);
      return { d: s.m.map(Math.sign), before: s.m };
    },
    adam(g, s, h, t) {
      s.m = average(s.m, g, h.b1);
      s.v = average(s.v, squares(g), h.b2);
      const c1 = 1 - h.b1 ** t, c2 = 1 - h.b2 ** t;
      return { ...scaled(s.m.map((m) => m / c1), s.v.map((v) => v / c2), h.eps), correction: Math.sqrt(c2) / c1 };
    },
    muon(g, s, h, t, shape) {
      s.m = average(s.m, g, h.beta);
      const u = g.map((each, i) => h.beta * s.m[i] + (1 - h.beta) * each);
      const factor = 0.2 * Math.sqrt(Math.max(...shape));
      const o = orthogonalize(u, shape, h.polynomials, h.prescale);
      return { d: o.map((each) => factor * each), before: u };
    },
  };
  step.adamw = step.adam;

  function scaled(numerator, variance, eps) {
    const divisors = variance.map((each) => Math.sqrt(each) + eps);
    return { d: numerator.map((each, i) => divide(each, divisors[i])), before: numerator, divisors };
  }

  // --- small matrices, row by row ---

  const transpose = (a, [m, n]) => Array.from({ length: m * n }, (_, k) => a[(k % m) * n + Math.floor(k / m)]);
  const multiply = (a, [m, k], b, [, n]) => {
    const c = zeros(m * n);
    for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) for (let l = 0; l < k; l++) c[i * n + j] += a[i * k + l] * b[l * n + j];
    return c;
  };
  const norm = (x, shape, prescale) => {
    const gram = multiply(x, shape, transpose(x, shape), [shape[1], shape[0]]), square = [shape[0], shape[0]];
    if (prescale === "frobenius") return length(x);
    return prescale === "schatten4" ? Math.sqrt(length(gram)) : Math.sqrt(Math.sqrt(length(multiply(gram, square, gram, square))));
  };
  // One step: X <- a X + (b A + c A A) X with A = X X^T; of a tall matrix, the transposed one.
  const newtonSchulz = (x, shape, [a, b, c]) => {
    const square = [shape[0], shape[0]];
    const gram = multiply(x, shape, transpose(x, shape), [shape[1], shape[0]]);
    const both = multiply(gram, square, gram, square).map((each, i) => b * gram[i] + c * each);
    const change = multiply(both, square, x, shape);
    return x.map((each, i) => a * each + change[i]);
  };
  function orthogonalize(x, shape, polynomials, prescale) {
    const tall = shape[0] > shape[1], wide = tall ? [shape[1], shape[0]] : shape;
    let y = tall ? transpose(x, shape) : x;
    const largest = Math.max(...y.map(Math.abs));
    if (!(largest > 0)) return x;
    y = y.map((each) => each / largest);
    const size = norm(y, wide, prescale);
    y = y.map((each) => each / size);
    for (const polynomial of polynomials) y = newtonSchulz(y, wide, polynomial);
    return tall ? transpose(y, wide) : y;
  }
  const singularValues = (x, shape) => {
    if (shape.length === 1 || shape[1] === 1) return [length(x)];
    const [a, b, c, d] = x, sum = Math.hypot(a + d, b - c), difference = Math.hypot(a - d, b + c);
    return [(sum + difference) / 2, Math.abs(sum - difference) / 2];
  };

  // The whole run: everything at every step, cut off where it leaves the range of numbers.
  function run(name, landscape, start, h, steps) {
    let x = landscape.params(start);
    const n = x.length, shape = n === 4 ? [2, 2] : [2, 1];
    const s = { m: zeros(n), v: zeros(n), d: zeros(n) };
    const found = { name, shape, x: [x], loss: [landscape.f(x)], g: [landscape.gradient(x)], update: [], m: [], v: [], info: [] };
    for (let t = 1; t <= steps; t++) {
      const slope = found.g[t - 1];
      const g = coupled(slope, x, h);
      const info = step[name](g, s, h, t, shape);
      const decay = h.weight_decay || 0;
      const update = info.d.map((each, i) => -h.rate * (each + decay * x[i]));
      x = x.map((each, i) => each + update[i]);
      if (!x.every((each) => Math.abs(each) < 1e8)) { found.diverged = true; break; }
      found.x.push(x);
      found.loss.push(landscape.f(x));
      found.g.push(landscape.gradient(x));
      found.update.push(update);
      found.m.push(s.m);
      found.v.push(s.v);
      info.used = g;
      const decayed = length(found.x[t - 1]) * (h.weight_decay || h.l2 || 0);
      info.decayShare = divide(decayed, decayed + length("weight_decay" in h ? info.d : slope));
      found.info.push(info);
    }
    found.steps = found.update.length;
    return found;
  }

  return { run, orthogonalize, newtonSchulz, norm, multiply, transpose, singularValues, length, names: Object.keys(step) };
})();
