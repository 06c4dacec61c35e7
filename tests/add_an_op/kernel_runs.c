static void run_squared_relu_fwd(Ctx *c) { c->k->squared_relu_fwd(out(c, c->a, 1), in(c, c->a, 3), c->a); }
static void run_squared_relu_bwd(Ctx *c)
{
    c->k->squared_relu_bwd(out(c, c->a, 1), in(c, c->a, 1), in(c, c->a, 3), c->a, c->mode);
}
