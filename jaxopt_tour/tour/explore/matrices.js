// Small matrices, row by row in one array, with shapes [rows, columns].
const Matrices = (() => {
  const zeros = (n) => new Array(n).fill(0);
  const length = (a) => Math.hypot(...a);
  const transpose = (a, [m, n]) => Array.from({ length: m * n }, (_, k) => a[(k % m) * n + Math.floor(k / m)]);
  const multiply = (a, [m, k], b, [, n]) => {
    const c = zeros(m * n);
    for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) for (let j = 0, x = a[i * k + l]; j < n; j++) c[i * n + j] += x * b[l * n + j];
    return c;
  };
  const gramOf = (x, [m, n]) => multiply(x, [m, n], transpose(x, [m, n]), [n, m]);

  // What each row is divided by before the first step. AOL (almost-orthogonal layers) takes one number a row.
  function prescale(x, shape, kind) {
    const m = shape[0], gram = gramOf(x, shape), square = [m, m];
    if (kind === "aol") return Array.from({ length: m }, (_, i) => Math.sqrt(gram.slice(i * m, i * m + m).reduce((sum, each) => sum + Math.abs(each), 0)));
    const norm = kind === "frobenius" ? length(x) : kind === "schatten4" ? Math.sqrt(length(gram)) : Math.sqrt(Math.sqrt(length(multiply(gram, square, gram, square))));
    return zeros(m).fill(norm);
  }
  const scaled = (x, [, n], sizes) => x.map((each, k) => each / (sizes[Math.floor(k / n)] || 1));
  // One step: X <- a X + (b A + c A A) X with A = X X^T.
  const newtonSchulz = (x, shape, [a, b, c]) => {
    const square = [shape[0], shape[0]], gram = gramOf(x, shape);
    const both = multiply(gram, square, gram, square).map((each, i) => b * gram[i] + c * each);
    const change = multiply(both, square, x, shape);
    return x.map((each, i) => a * each + change[i]);
  };
  // Of a tall matrix, the transposed one.
  function orthogonalize(x, shape, polynomials, kind) {
    const tall = shape[0] > shape[1], wide = tall ? [shape[1], shape[0]] : shape;
    let y = tall ? transpose(x, shape) : x;
    const largest = Math.max(...y.map(Math.abs));
    if (!(largest > 0)) return x;
    y = y.map((each) => each / largest);
    y = scaled(y, wide, prescale(y, wide, kind));
    for (const polynomial of polynomials) y = newtonSchulz(y, wide, polynomial);
    return tall ? transpose(y, wide) : y;
  }

  // One-sided Jacobi: rotations of pairs of columns until all are orthogonal. Returns U S and V by columns.
  function svd(x, shape) {
    const [m, n] = shape;
    const us = Array.from({ length: n }, (_, j) => Array.from({ length: m }, (_, i) => x[i * n + j]));
    const v = Array.from({ length: n }, (_, j) => Array.from({ length: n }, (_, i) => (i === j ? 1 : 0)));
    const dot = (a, b) => a.reduce((sum, each, i) => sum + each * b[i], 0);
    for (let round = 0; round < 60; round++) {
      let moved = false;
      for (let p = 0; p < n; p++)
        for (let q = p + 1; q < n; q++) {
          const alpha = dot(us[p], us[p]), beta = dot(us[q], us[q]), gamma = dot(us[p], us[q]);
          if (Math.abs(gamma) <= 1e-15 * Math.sqrt(alpha * beta) || gamma === 0) continue;
          moved = true;
          const zeta = (beta - alpha) / (2 * gamma), t = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.hypot(1, zeta));
          const c = 1 / Math.hypot(1, t), s = c * t;
          for (const columns of [us, v])
            [columns[p], columns[q]] = [columns[p].map((each, i) => c * each - s * columns[q][i]), columns[q].map((each, i) => s * columns[p][i] + c * each)];
        }
      if (!moved) break;
    }
    const order = us.map((column, j) => [length(column), j]).sort((a, b) => b[0] - a[0]);
    return { values: order.map(([s]) => s), us: order.map(([, j]) => us[j]), v: order.map(([, j]) => v[j]) };
  }
  const singularValues = (x, shape) => {
    const [m, n] = shape.length === 1 ? [shape[0], 1] : shape;
    return svd(m < n ? transpose(x, [m, n]) : x, m < n ? [n, m] : [m, n]).values;
  };
  // (A + ridge tr(A) I)^(-1/root) of a symmetric matrix with no negative eigenvalues.
  function inverseRoot(a, n, root, ridge) {
    const { values, v } = svd(a, [n, n]);
    const trace = values.reduce((sum, each) => sum + each, 0), powers = values.map((each) => (each + ridge * trace) ** (-1 / root));
    return Array.from({ length: n * n }, (_, k) => powers.reduce((sum, p, i) => sum + (p ? v[i][Math.floor(k / n)] * p * v[i][k % n] : 0), 0));
  }

  return { zeros, length, transpose, multiply, prescale, scaled, newtonSchulz, orthogonalize, svd, singularValues, inverseRoot };
})();
