for key, shape in [("one", (1,)), ("odd", (3, 37)), ("batch", (2, 5, 16))]:
    case(f"squared_relu.{key}", lambda x: F.relu(x) ** 2, [rnd(*shape, std=2.0)])
case("squared_relu.far", lambda x: F.relu(x) ** 2, [far])
