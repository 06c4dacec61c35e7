/* Squared ReLU: max(x, 0)^2; derivative 2 max(x, 0). A NaN stays one. */
HD SCALAR_T S(squared_relu)(SCALAR_T x) { return x < (SCALAR_T)0 ? (SCALAR_T)0 : x * x; }
HD SCALAR_T S(squared_relu_grad)(SCALAR_T x) { return x < (SCALAR_T)0 ? (SCALAR_T)0 : (SCALAR_T)2 * x; }
