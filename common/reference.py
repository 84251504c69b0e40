"""GPT in plain NumPy, forward and backward by hand: to be read beside the torch code, and to check it.

Every piece is a pair of functions:

    xxx(inputs)               -> (out, cache)   the forward pass, and what the backward pass will need
    xxx_backward(dout, cache) -> gradients      one for each input, in the order of the inputs

`dx` is short for ∂loss/∂x and has the shape of `x`: a backward pass turns the gradient of what came out into
the gradients of what went in. Three rules derive every formula in this file:

    chain rule      out = f(x)           dx = f'(x) · dout
    matrix rule     out = a @ b          da = dout @ bᵀ  and  db = aᵀ @ dout
    sum rule        x is used by f, g    dx = dx from f + dx from g   (also if it is looked up or broadcast)

Shapes: B batch, T time, C channels (n_embd), H heads, D head size (C / H), V vocabulary, I and O the widths
into and out of a layer, `*B` any number of leading axes. Weights have torch's layout, (O, I). Pieces that own
several parameters take them in a dict, under the names in the torch module's `state_dict()`, and return their
gradients under the same names. Arrays keep their dtype: float64 agrees with autograd to 1e-10. No dropout.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

BTC = Float[Array, "B T C"]
Params = dict[str, Array]
Cache = tuple  # only the matching backward function knows what is in it


# ── layers ────────────────────────────────────────────────────────────────────────────────────────────────


def embedding(weight: Float[Array, "V C"], idx: Int[Array, "*B"]) -> tuple[Float[Array, "*B C"], Cache]:
    """out = weight[idx]: a row of the table for every idx, 0 ≤ idx < V."""
    return weight[idx], (weight, idx)


def embedding_backward(dout: Float[Array, "*B C"], cache: Cache) -> Float[Array, "V C"]:
    """dweight[v] = Σ dout where idx = v. The sum rule: a row looked up n times has n gradients."""
    weight, idx = cache
    dweight = np.zeros_like(weight)
    np.add.at(dweight, idx, dout)  # dweight[idx] += dout would keep only one of several equal indices
    return dweight


def linear(
    x: Float[Array, "*B I"], weight: Float[Array, "O I"], bias: Float[Array, "O"] | None = None
) -> tuple[Float[Array, "*B O"], Cache]:
    """out = x @ weightᵀ + bias."""
    out = x @ weight.T
    return (out if bias is None else out + bias), (x, weight)


def linear_backward(dout: Float[Array, "*B O"], cache: Cache) -> tuple[Array, Array, Array]:
    """dx = dout @ weight,  dweight = doutᵀ @ x,  dbias = Σ dout over all leading axes.

    The matrix rule for x @ weightᵀ; the sum rule for bias, which is broadcast to every row of x.
    """
    x, weight = cache
    x_rows, dout_rows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    return dout @ weight, dout_rows.T @ x_rows, dout_rows.sum(0)


def relu(x: Float[Array, "*B"]) -> tuple[Float[Array, "*B"], Cache]:
    """out = max(x, 0)."""
    return np.maximum(x, 0), (x,)


def relu_backward(dout: Float[Array, "*B"], cache: Cache) -> Float[Array, "*B"]:
    """dx = dout where x > 0, else 0. At x = 0 there is no slope; like torch, we take 0."""
    (x,) = cache
    return dout * (x > 0)


def gelu(x: Float[Array, "*B"]) -> tuple[Float[Array, "*B"], Cache]:
    """out = ½ x (1 + tanh u),  u = √(2/π) (x + 0.044715 x³): GPT-2's form (arXiv 1606.08415, section 2)."""
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + tanh), (x, tanh)


def gelu_backward(dout: Float[Array, "*B"], cache: Cache) -> Float[Array, "*B"]:
    """dx = dout · ½ (1 + tanh u + x (1 − tanh² u) u'),  u' = √(2/π) (1 + 3 · 0.044715 x²).

    The derivative of the product x · (1 + tanh u), with tanh' = 1 − tanh².
    """
    x, tanh = cache
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return dout * 0.5 * (1 + tanh + x * (1 - tanh**2) * du)


def layer_norm(
    x: Float[Array, "*B C"], weight: Float[Array, "C"], bias: Float[Array, "C"], eps: float = 1e-5
) -> tuple[Float[Array, "*B C"], Cache]:
    """out = weight · x̂ + bias,  x̂ = (x − mean) / √(var + eps), mean and variance over C."""
    centred = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    x_hat = centred * rstd
    return weight * x_hat + bias, (x_hat, rstd, weight)


def layer_norm_backward(dout: Float[Array, "*B C"], cache: Cache) -> tuple[Array, Array, Array]:
    """dx = (dx̂ − mean(dx̂) − x̂ · mean(dx̂ · x̂)) / √(var + eps),  dx̂ = dout · weight,
    dweight = Σ dout · x̂,  dbias = Σ dout over all leading axes.

    x enters x̂ three times: as itself, through the mean (∂mean/∂x = 1/C) and through the standard deviation
    (∂√(var + eps)/∂x = x̂/C). By the sum rule, one term of dx for each.
    """
    x_hat, rstd, weight = cache
    dx_hat = dout * weight
    through_mean = dx_hat.mean(-1, keepdims=True)
    through_std = x_hat * (dx_hat * x_hat).mean(-1, keepdims=True)
    leading = tuple(range(dout.ndim - 1))
    return (dx_hat - through_mean - through_std) * rstd, (dout * x_hat).sum(leading), dout.sum(leading)


def softmax(x: Float[Array, "*B V"]) -> tuple[Float[Array, "*B V"], Cache]:
    """p = exp(x) / Σ exp(x) over the last axis. Subtracting the maximum only avoids overflow."""
    exp = np.exp(x - x.max(-1, keepdims=True))
    p = exp / exp.sum(-1, keepdims=True)
    return p, (p,)


def softmax_backward(dout: Float[Array, "*B V"], cache: Cache) -> Float[Array, "*B V"]:
    """dx = p · (dout − Σ dout · p), because ∂p_j/∂x_i = p_j (δ_ij − p_i)."""
    (p,) = cache
    return p * (dout - (dout * p).sum(-1, keepdims=True))


def cross_entropy(logits: Float[Array, "*B V"], targets: Int[Array, "*B"]) -> tuple[np.floating, Cache]:
    """loss = mean of −log softmax(logits)[target], in nats, 0 ≤ target < V."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], -1).mean(), (log_p, targets)


def cross_entropy_backward(dloss: float | np.floating, cache: Cache) -> Float[Array, "*B V"]:
    """dlogits = dloss · (softmax(logits) − onehot(target)) / N for N targets.

    One target's loss is log Σ exp(logits) − logits[target]; the logarithm's gradient is softmax(logits).
    """
    log_p, targets = cache
    onehot = targets[..., None] == np.arange(log_p.shape[-1])
    return dloss * (np.exp(log_p) - onehot) / targets.size


# ── the past ──────────────────────────────────────────────────────────────────────────────────────────────


def prefix_mean(x: Float[Array, "*B T C"]) -> tuple[Float[Array, "*B T C"], Cache]:
    """out[t] = (x[0] + … + x[t]) / (t + 1): step 02, attention with equal weights."""
    count = np.arange(1, x.shape[-2] + 1, dtype=x.dtype)[:, None]
    return x.cumsum(-2) / count, (count,)


def prefix_mean_backward(dout: Float[Array, "*B T C"], cache: Cache) -> Float[Array, "*B T C"]:
    """dx[s] = Σ_{t ≥ s} dout[t] / (t + 1): x[s] is in every mean from s on, so we add up from the end."""
    (count,) = cache
    return np.flip(np.flip(dout / count, -2).cumsum(-2), -2)


def scaled_dot_product_attention(
    q: Float[Array, "*B T D"], k: Float[Array, "*B T D"], v: Float[Array, "*B T E"]
) -> tuple[Float[Array, "*B T E"], Cache]:
    """out = w @ v,  w = softmax(q @ kᵀ / √D) over the keys no later than the query (arXiv 1706.03762, eq. 1).

    `*B` is B for one head, B H for many. E is the width of the values: D, but C in step 03, where v is x.
    """
    T, D = q.shape[-2:]
    scores = q @ k.swapaxes(-2, -1) * D**-0.5
    weights, softmax_cache = softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))
    return weights @ v, (q, k, v, weights, softmax_cache)


def scaled_dot_product_attention_backward(
    dout: Float[Array, "*B T E"], cache: Cache
) -> tuple[Array, Array, Array]:
    """dv = wᵀ @ dout,  dw = dout @ vᵀ,  ds = softmax_backward(dw) / √D,  dq = ds @ k,  dk = dsᵀ @ q.

    The matrix rule, the softmax, the matrix rule. The mask needs no line: where w = 0, so is ds.
    """
    q, k, v, weights, softmax_cache = cache
    dv = weights.swapaxes(-2, -1) @ dout
    dscores = softmax_backward(dout @ v.swapaxes(-2, -1), softmax_cache) * q.shape[-1] ** -0.5
    return dscores @ k, dscores.swapaxes(-2, -1) @ q, dv


# ── modules: several layers, parameters by name ───────────────────────────────────────────────────────────


def part(params: Params, prefix: str) -> Params:
    """The parameters under a prefix: part({"ln_1.bias": b, …}, "ln_1.") = {"bias": b}."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def under(prefix: str, grads: Params) -> Params:
    """The way back: under("ln_1.", {"bias": db}) = {"ln_1.bias": db}."""
    return {prefix + name: value for name, value in grads.items()}


def head(x: BTC, params: Params) -> tuple[Float[Array, "B T D"], Cache]:
    """One head, steps 04 to 06: `query.weight`, `key.weight` and `value.weight`, each (D, C), no bias."""
    q, q_cache = linear(x, params["query.weight"])
    k, k_cache = linear(x, params["key.weight"])
    v, v_cache = linear(x, params["value.weight"])
    out, attention_cache = scaled_dot_product_attention(q, k, v)
    return out, (q_cache, k_cache, v_cache, attention_cache)


def head_backward(dout: Float[Array, "B T D"], cache: Cache) -> tuple[BTC, Params]:
    """dx = dq @ Wq + dk @ Wk + dv @ Wv: the sum rule, x is used three times."""
    q_cache, k_cache, v_cache, attention_cache = cache
    grads = {}
    dq, dk, dv = scaled_dot_product_attention_backward(dout, attention_cache)
    dx_q, grads["query.weight"], _ = linear_backward(dq, q_cache)
    dx_k, grads["key.weight"], _ = linear_backward(dk, k_cache)
    dx_v, grads["value.weight"], _ = linear_backward(dv, v_cache)
    return dx_q + dx_k + dx_v, grads


def multi_head(x: BTC, params: Params) -> tuple[BTC, Cache]:
    """Heads side by side, steps 05 and 06: `heads.0.query.weight` … concatenated, then `c_proj`."""
    n_head = sum(name.endswith(".query.weight") for name in params)
    heads = [head(x, part(params, f"heads.{i}.")) for i in range(n_head)]
    concat = np.concatenate([out for out, _ in heads], -1)
    out, c_proj_cache = linear(concat, params["c_proj.weight"], params["c_proj.bias"])
    return out, ([head_cache for _, head_cache in heads], c_proj_cache)


def multi_head_backward(dout: BTC, cache: Cache) -> tuple[BTC, Params]:
    """A concatenation's gradient is cut where it was joined; every head reads x, so their dx add up."""
    head_caches, c_proj_cache = cache
    dx, grads = 0, {}
    dconcat, grads["c_proj.weight"], grads["c_proj.bias"] = linear_backward(dout, c_proj_cache)
    for i, dhead in enumerate(np.split(dconcat, len(head_caches), -1)):
        dx_from, head_grads = head_backward(dhead, head_caches[i])
        dx, grads = dx + dx_from, grads | under(f"heads.{i}.", head_grads)
    return dx, grads


def split_heads(x: BTC, n_head: int) -> Float[Array, "B H T D"]:
    """(B, T, C) → (B, H, T, D). Numbers only change places, so the backward pass is merge_heads."""
    B, T, C = x.shape
    return x.reshape(B, T, n_head, C // n_head).swapaxes(1, 2)


def merge_heads(x: Float[Array, "B H T D"]) -> BTC:
    """(B, H, T, D) → (B, T, C), the inverse of split_heads and its backward pass."""
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)


def attention(x: BTC, params: Params, n_head: int) -> tuple[BTC, Cache]:
    """multi_head as GPT-2 has it, step 07: q, k, v of all heads from one `c_attn` (3C, C), then `c_proj`."""
    qkv, c_attn_cache = linear(x, params["c_attn.weight"], params["c_attn.bias"])
    q, k, v = (split_heads(each, n_head) for each in np.split(qkv, 3, -1))
    out, attention_cache = scaled_dot_product_attention(q, k, v)
    out, c_proj_cache = linear(merge_heads(out), params["c_proj.weight"], params["c_proj.bias"])
    return out, (n_head, c_attn_cache, attention_cache, c_proj_cache)


def attention_backward(dout: BTC, cache: Cache) -> tuple[BTC, Params]:
    """The forward lines from the last to the first: merging becomes splitting, splitting becomes joining."""
    n_head, c_attn_cache, attention_cache, c_proj_cache = cache
    grads = {}
    dout, grads["c_proj.weight"], grads["c_proj.bias"] = linear_backward(dout, c_proj_cache)
    dq_dk_dv = scaled_dot_product_attention_backward(split_heads(dout, n_head), attention_cache)
    dqkv = np.concatenate([merge_heads(each) for each in dq_dk_dv], -1)
    dx, grads["c_attn.weight"], grads["c_attn.bias"] = linear_backward(dqkv, c_attn_cache)
    return dx, grads


def mlp(x: BTC, params: Params, activation: str = "gelu") -> tuple[BTC, Cache]:
    """Feed-forward: `c_fc` (4C, C), the activation ("relu" in step 06, "gelu" in 07), `c_proj` (C, 4C)."""
    forward, backward = {"relu": (relu, relu_backward), "gelu": (gelu, gelu_backward)}[activation]
    hidden, c_fc_cache = linear(x, params["c_fc.weight"], params["c_fc.bias"])
    hidden, activation_cache = forward(hidden)
    out, c_proj_cache = linear(hidden, params["c_proj.weight"], params["c_proj.bias"])
    return out, (backward, c_fc_cache, activation_cache, c_proj_cache)


def mlp_backward(dout: BTC, cache: Cache) -> tuple[BTC, Params]:
    """The chain rule through three layers, from the last to the first."""
    backward, c_fc_cache, activation_cache, c_proj_cache = cache
    grads = {}
    dhidden, grads["c_proj.weight"], grads["c_proj.bias"] = linear_backward(dout, c_proj_cache)
    dhidden = backward(dhidden, activation_cache)
    dx, grads["c_fc.weight"], grads["c_fc.bias"] = linear_backward(dhidden, c_fc_cache)
    return dx, grads


def block(x: BTC, params: Params, n_head: int, activation: str = "gelu") -> tuple[BTC, Cache]:
    """x = x + attn(ln_1(x)), then x = x + mlp(ln_2(x)): a pre-LayerNorm block."""
    normed, ln_1_cache = layer_norm(x, params["ln_1.weight"], params["ln_1.bias"])
    branch, attn_cache = attention(normed, part(params, "attn."), n_head)
    x = x + branch
    normed, ln_2_cache = layer_norm(x, params["ln_2.weight"], params["ln_2.bias"])
    branch, mlp_cache = mlp(normed, part(params, "mlp."), activation)
    return x + branch, (ln_1_cache, attn_cache, ln_2_cache, mlp_cache)


def block_backward(dout: BTC, cache: Cache) -> tuple[BTC, Params]:
    """For out = x + f(x), dx = dout + f_backward(dout): the residual path hands dout on untouched."""
    ln_1_cache, attn_cache, ln_2_cache, mlp_cache = cache
    grads = {}
    dnormed, mlp_grads = mlp_backward(dout, mlp_cache)
    dbranch, grads["ln_2.weight"], grads["ln_2.bias"] = layer_norm_backward(dnormed, ln_2_cache)
    dx = dout + dbranch
    dnormed, attn_grads = attention_backward(dx, attn_cache)
    dbranch, grads["ln_1.weight"], grads["ln_1.bias"] = layer_norm_backward(dnormed, ln_1_cache)
    return dx + dbranch, grads | under("attn.", attn_grads) | under("mlp.", mlp_grads)


# ── models: (logits, loss, cache), and the gradient of the loss ───────────────────────────────────────────


def bigram(
    table: Float[Array, "V V"], idx: Int[Array, "B T"], targets: Int[Array, "B T"]
) -> tuple[Float[Array, "B T V"], np.floating, Cache]:
    """Step 01: the logits of what comes next are a row of the table."""
    logits, embedding_cache = embedding(table, idx)
    loss, loss_cache = cross_entropy(logits, targets)
    return logits, loss, (embedding_cache, loss_cache)


def bigram_backward(cache: Cache) -> Float[Array, "V V"]:
    """dtable[v] = Σ (softmax(table[v]) − onehot(target)) / N over the places where idx = v, of N in all."""
    embedding_cache, loss_cache = cache
    return embedding_backward(cross_entropy_backward(1.0, loss_cache), embedding_cache)


def gpt(
    params: Params, idx: Int[Array, "B T"], targets: Int[Array, "B T"], n_head: int
) -> tuple[Float[Array, "B T V"], np.floating, Cache]:
    """GPT-2, step 07: what + where, the blocks, a last LayerNorm, and logits by the token table once more.

    Names: `wte.weight` (V, C), `wpe.weight` (block_size, C), `h.0.ln_1.weight` …, `ln_f.weight`, `ln_f.bias`;
    `lm_head.weight` is not read, for it is `wte.weight`. IndexError if T > block_size.
    """
    tokens, wte_cache = embedding(params["wte.weight"], idx)
    positions, wpe_cache = embedding(params["wpe.weight"], np.arange(idx.shape[1]))
    x, block_caches = tokens + positions, []
    for i in range(sum(name.endswith(".ln_1.weight") for name in params)):
        x, block_cache = block(x, part(params, f"h.{i}."), n_head)
        block_caches.append(block_cache)
    x, ln_f_cache = layer_norm(x, params["ln_f.weight"], params["ln_f.bias"])
    logits, head_cache = linear(x, params["wte.weight"])
    loss, loss_cache = cross_entropy(logits, targets)
    return logits, loss, (wte_cache, wpe_cache, block_caches, ln_f_cache, head_cache, loss_cache)


def gpt_backward(cache: Cache) -> Params:
    """The gradient of each parameter. The sum rule twice: wte serves both ends, wpe each row of the batch."""
    wte_cache, wpe_cache, block_caches, ln_f_cache, head_cache, loss_cache = cache
    grads = {}
    dx, dwte_as_head, _ = linear_backward(cross_entropy_backward(1.0, loss_cache), head_cache)
    dx, grads["ln_f.weight"], grads["ln_f.bias"] = layer_norm_backward(dx, ln_f_cache)
    for i in reversed(range(len(block_caches))):
        dx, block_grads = block_backward(dx, block_caches[i])
        grads |= under(f"h.{i}.", block_grads)
    grads["wpe.weight"] = embedding_backward(dx.sum(0), wpe_cache)
    grads["wte.weight"] = dwte_as_head + embedding_backward(dx, wte_cache)
    return grads
