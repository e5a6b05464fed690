// The rules, as the library has them: one function an optimizer, entry by entry, or for a small matrix.
// A step takes the gradient g, the state s, the settings h, t (from 1) and the shape; it returns the step d with
// x <- x - rate (d + weight_decay x), and what the page says about it. Rules with coupled L2 have the setting `l2`
// and no `weight_decay`.
const Rules = (() => {
  const { zeros, length, transpose, multiply, orthogonalize, inverseRoot, singularValues } = Matrices;
  const average = (old, value, b) => old.map((each, i) => b * each + (1 - b) * value[i]);
  const squares = (g) => g.map((each) => each * each);
  const divide = (a, b) => (b === 0 ? 0 : a / b);
  const coupled = (g, x, h) => (h.l2 ? g.map((each, i) => each + h.l2 * x[i]) : g);
  const corrections = (h, t) => (h.bias_correction === false ? [1, 1, 1] : [1 - h.b1 ** t, 1 - h.b2 ** t, 1 - h.b1 ** (t + 1)]);
  // rho(t; b1, b2): what bias correction multiplies Adam's step by.
  const rho = (h, t) => Math.sqrt(1 - h.b2 ** t) / (1 - h.b1 ** t);

  function scaled(numerator, variance, eps) {
    const divisors = variance.map((each) => Math.sqrt(each) + eps);
    return { d: numerator.map((each, i) => divide(each, divisors[i])), before: numerator, divisors };
  }
  // The average m of gradients, and what Muon's family orthogonalizes: with Nesterov a step ahead.
  function look(g, s, h) {
    s.m = average(s.m, g, h.beta);
    return h.nesterov === false ? s.m : average(s.m, g, h.beta);
  }
  const sized = (o, shape) => o.map((each) => 0.2 * Math.sqrt(Math.max(...shape)) * each);

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
    lion(g, s, h) {
      const before = average(s.m, g, h.b1);
      s.m = average(s.m, g, h.b2);
      return { d: before.map(Math.sign), before };
    },
    adam(g, s, h, t) {
      if (t === 1 && h.initial_moments === "first_gradient") [s.m, s.v] = [g, squares(g)];
      s.m = average(s.m, g, h.b1);
      s.v = average(s.v, squares(g), h.b2);
      const [c1, c2, ahead] = corrections(h, t);
      const m = s.m.map((each, i) => (h.nesterov ? (h.b1 * each) / ahead + ((1 - h.b1) * g[i]) / c1 : each / c1));
      return { ...scaled(m, s.v.map((v) => v / c2), h.eps), correction: Math.sqrt(c2) / c1 };
    },
    laprop(g, s, h, t) {
      const [c1, c2] = corrections(h, t);
      s.v = average(s.v, squares(g), h.b2);
      const ratio = scaled(g, s.v.map((v) => v / c2), h.eps);
      s.m = average(s.m, ratio.d, h.b1);
      return { d: s.m.map((each) => each / c1), before: s.m, used: ratio.d, divisors: ratio.divisors, correction: Math.sqrt(c2) / c1 };
    },
    eadam(g, s, h, t) {
      s.m = average(s.m, g, h.b1);
      s.v = average(s.v, squares(g), h.b2).map((each) => each + h.eps);
      const c1 = 1 - h.b1 ** t, c2 = 1 - h.b2 ** t;
      return { ...scaled(s.m.map((m) => m / c1), s.v.map((v) => v / c2), h.eps), correction: Math.sqrt(c2) / c1, floor: Math.sqrt(h.eps / (1 - h.b2)) };
    },
    shampoo(g, s, h, t, [m, n]) {
      const u = look(g, s, h), turned = transpose(u, [m, n]), c = h.bias_correction === false ? 1 : 1 - h.b2 ** t;
      s.left = average(s.left ?? zeros(m * m), multiply(u, [m, n], turned, [n, m]), h.b2);
      s.right = average(s.right ?? zeros(n * n), multiply(turned, [n, m], u, [m, n]), h.b2);
      const [left, right] = [inverseRoot(s.left.map((each) => each / c), m, 4, h.eps), inverseRoot(s.right.map((each) => each / c), n, 4, h.eps)];
      const o = length(u) ? multiply(multiply(left, [m, m], u, [m, n]), [m, n], right, [n, n]) : u;
      return { d: sized(o, [m, n]), before: u, correction: Math.sqrt(c) };
    },
    muon(g, s, h, t, shape) {
      const u = look(g, s, h);
      return { d: sized(orthogonalize(u, shape, h.polynomials, h.prescale), shape), before: u };
    },
    // The units are the more numerous of inputs (rows) and outputs (columns); of a square matrix the outputs.
    normuon(g, s, h, t, shape) {
      const u = look(g, s, h), o = orthogonalize(u, shape, h.polynomials, h.prescale), [m, n] = shape;
      const unit = (k) => (m > n ? Math.floor(k / n) : k % n), count = Math.max(m, n), mean = zeros(count);
      o.forEach((each, k) => { mean[unit(k)] += (each * each) / Math.min(m, n); });
      s.units = average(s.units ?? zeros(count), mean, h.b2);
      const divisors = s.units.map((v) => Math.sqrt(v) + 1e-10), hat = o.map((each, k) => each / divisors[unit(k)]);
      const share = divide(length(o), length(hat));
      return { d: sized(hat.map((each) => share * each), shape), before: u, units: divisors };
    },
  };
  step.adamw = step.adam;

  // The rate of step t: constant, or falling linearly to zero after the last step.
  const rateAt = (h, t, steps) => (h.schedule === "linear" ? h.rate * (1 - (t - 1) / steps) : h.rate);

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
      const decay = h.weight_decay || 0, rate = rateAt(h, t, steps);
      const update = info.d.map((each, i) => -rate * (each + decay * x[i]));
      x = x.map((each, i) => each + update[i]);
      if (!x.every((each) => Math.abs(each) < 1e8)) { found.diverged = true; break; }
      found.x.push(x);
      found.loss.push(landscape.f(x));
      found.g.push(landscape.gradient(x));
      found.update.push(update);
      found.m.push(s.m);
      found.v.push(s.v);
      info.used ??= g;
      const decayed = length(found.x[t - 1]) * (h.weight_decay || h.l2 || 0);
      info.decayShare = divide(decayed, decayed + length("weight_decay" in h ? info.d : slope));
      found.info.push(info);
    }
    found.steps = found.update.length;
    return found;
  }

  return { run, rho, rateAt, singularValues, length, names: Object.keys(step) };
})();
