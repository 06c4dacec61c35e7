                             FLAT(squared_relu_fwd, 5e-7),
                             FLAT(squared_relu_bwd, 5e-7),
