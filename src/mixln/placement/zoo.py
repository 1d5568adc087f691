"""The named placements: each is a factory from the number of layers to one record per layer.

Formulas: N is a norm, A attention, F the feed-forward, L the number of layers, l the 1-based layer index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from mixln.errors import PlacementError
from mixln.placement.entry import (
    HOST,
    HYBRID,
    POST,
    PRE,
    QKV_NORM,
    RES_POST,
    SANDWICH,
    SUB_LN,
    Entry,
    both,
    uniform,
)
from mixln.placement.recent import RECENT
from mixln.placement.records import MOST_STREAMS, Gain, Layer, Norm, Placement, ProjectionNorm, Projections, Sublayer


def post_layers(share: Fraction | int, layers: int) -> int:
    """⌊αL⌋, the number of Post-LN layers of Mix-LN, in exact arithmetic.

    :param share: α, an exact fraction of the layers in [0, 1]; as an `int` of 2 or more, the number of layers.
    :raises PlacementError: if the fraction is outside [0, 1] or the count exceeds the number of layers.
    """
    if isinstance(share, int) and share > 1:
        if share > layers:
            raise PlacementError(
                f"mix({share}): the number of Post-LN layers must be at most the model's {layers}, got {share}"
            )
        return share
    if not 0 <= share <= 1:
        raise PlacementError(
            f"mix: α must lie in [0, 1], got {float(share):g}; it is the share of Post-LN layers, or an integer count of 2 or more"
        )
    return math.floor(share * layers)


def _mix(layers: int, share: str = "0.25") -> Placement:
    count = post_layers(alpha(share), layers)
    return Placement(name="", layers=(POST,) * count + (PRE,) * (layers - count))


def _hybrid_star(layers: int) -> Placement:
    first = replace(PRE, projections=QKV_NORM)
    return Placement(name="", layers=(first,) + (HYBRID,) * (layers - 1))


def _deepnorm(layers: int, alpha: str = "") -> Placement:
    try:
        scale = float(alpha) if alpha else (2 * layers) ** 0.25
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise PlacementError(f"deepnorm({alpha}): α must be a number above 0, got {alpha!r}; omit it for (2L)^¼")
    layer = both(Sublayer(stream_out=HOST, skip_scale=scale))
    return Placement(name="", layers=(layer,) * layers)


def _peri(layers: int) -> Placement:
    return Placement(name="", layers=(SANDWICH,) * layers, embedding_norm=HOST)


def _lns(layers: int) -> Placement:
    def scaled(index: int) -> Layer:
        return both(Sublayer(branch_in=HOST, branch_scale=1 / math.sqrt(index)))

    return Placement(name="", layers=tuple(scaled(index) for index in range(1, layers + 1)))


def _group_pre(layers: int, groups: str = "4") -> Placement:
    return uniform(both(Sublayer(branch_in=group_norm(groups))))(layers)


def group_norm(groups: str) -> Norm:
    """RMSNorm within `groups` groups of features.

    :raises PlacementError: if `groups` is not an integer of at least 1.
    """
    if not groups.isdecimal() or int(groups) < 1:
        raise PlacementError(f"group({groups}): groups must be an integer of at least 1, got {groups!r}")
    return Norm(kind="group", groups=int(groups))


_VARIANT = re.compile(r"(?:(?P<attention>pre|post)-)?(?:(?P<letters>[qkvc]+)-)?(?P<feed_forward>pre|post)")


def _hybrid(layers: int, variant: str = "qkv-post") -> Placement:
    """Variants from the ablation of the HybridNorm paper: [pre- or post-][letters from qkvc-]pre or post.

    The first word is the attention's outer norm, the last the feed-forward's norm. In both positions `post` is the form that the
    paper's method uses in the feed-forward: n = N(x), out = n + f(n).
    """
    match = _VARIANT.fullmatch(variant)
    if match is None:
        raise PlacementError(
            f"hybrid({variant}): the variant must have the form [pre- or post-][letters from qkvc-]pre or post, "
            f"for example qkv-post or pre-qk-pre, got {variant!r}"
        )
    if doubled := [letter for letter in match["letters"] or "" if match["letters"].count(letter) > 1]:
        raise PlacementError(f"hybrid({variant}): each letter may occur once, got {doubled[0]!r} more than once")
    outer, inner = match["attention"], match["feed_forward"]
    layer = Layer(
        attention=Sublayer(
            stream_in=HOST if outer == "post" else None,
            branch_in=HOST if outer == "pre" else None,
            stream_out=HOST if inner == "post" else None,
        ),
        feed_forward=Sublayer(branch_in=HOST if inner == "pre" else None),
        projections=projection_norms(match["letters"] or ""),
    )
    return Placement(name="", layers=(layer,) * layers)


def projection_norms(letters: str, width: str = "head") -> Projections:
    """Norms on the projections named by `letters`: q, k, v and c (the context, before the output projection).

    :param width: `head` or `full`.
    """
    slots = {"q": "query", "k": "key", "v": "value", "c": "context"}
    norm = ProjectionNorm(width=width)  # type: ignore[arg-type]
    return replace(Projections(), **{slots[letter]: norm for letter in letters})


def _keel(layers: int) -> Placement:
    layer = both(Sublayer(branch_in=HOST, stream_out=HOST, skip_scale=float(2 * layers)))
    return Placement(name="", layers=(PRE,) + (layer,) * (layers - 1))


def _resi_dual(layers: int) -> Placement:
    return Placement(name="", layers=(POST,) * layers, streams="resi-dual")


def _dlcl(layers: int) -> Placement:
    return Placement(name="", layers=(PRE,) * layers, streams="dlcl")


def _connected(streams: str, layer: Layer = PRE) -> Callable[..., Placement]:
    """A factory of N streams with learned maps."""

    def build(layers: int, count: str = "4") -> Placement:
        return Placement(
            name=f"{streams}({count})",
            layers=(layer,) * layers,
            streams=streams,  # type: ignore[arg-type]
            stream_count=stream_count(streams, count),
        )

    return build


def _hyper(layers: int, count: str = "4", form: str = "dynamic") -> Placement:
    """:raises PlacementError: if the form is not `dynamic` or `static`."""
    if form not in ("dynamic", "static"):
        raise PlacementError(f"hc({count},{form}): the form must be dynamic or static, got {form!r}")
    built = _connected("hc")(layers, count)
    return built if form == "dynamic" else replace(built, name=f"hc({count},static)", streams="hc-static")


def _siamese(layers: int) -> Placement:
    layer = both(Sublayer(stream_in=HOST, branch_in=HOST))
    return Placement(name="", layers=(layer,) * layers, streams="siamese")


def _attnres(layers: int, block: str = "", form: str = "") -> Placement:
    """By default the largest block of at most 6 layers, that of Inkling-2, of which the model has two or more."""
    if form not in ("", "normed"):
        raise PlacementError(f"attnres({block},{form}): the form must be normed or absent, got {form!r}")
    period = (
        _period("attnres", block) if block else max(n for n in range(1, 7) if layers % n == 0 and n < max(layers, 2))
    )
    if layers % period:
        raise PlacementError(f"attnres({block}): the block must divide the model's {layers} layers, got {period}")
    streams = "attnres-normed" if form else "attnres"
    return Placement(name="", layers=(PRE,) * layers, streams=streams, stream_period=period)  # type: ignore[arg-type]


def _denseformer(layers: int, period: str = "1") -> Placement:
    count = _period("denseformer", period)
    if count > layers:
        raise PlacementError(
            f"denseformer({period}): the period must be at most the model's {layers} layers, got {count}"
        )
    return Placement(name="", layers=(PRE,) * layers, streams="denseformer", stream_period=count)


def _period(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise PlacementError(f"{name}({text}): the number of layers must be an integer of at least 1, got {text!r}")
    return int(text)


def stream_count(name: str, text: str) -> int:
    """:raises PlacementError: if the number of streams is not an integer in range."""
    if not text.isdecimal() or len(text) > 9 or not 2 <= int(text) <= MOST_STREAMS:
        raise PlacementError(
            f"{name}({text}): the number of streams must be an integer from 2 to {MOST_STREAMS}, got {text!r}"
        )
    return int(text)


ZOO: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="pre",
            title="Pre-LN",
            formula="x ← x + A(N(x));  x ← x + F(N(x))",
            source="arXiv:2002.04745",
            build=uniform(PRE),
            notes="The stock placement of Llama and of nearly every LLM.",
            known_for="Stable at the highest learning rates: the limit is 7.65e-3 at 64 layers and 4.67e-3 at 512, against 3.0e-4 and "
            "2.8e-4 for Post-LN (KEEL, arXiv:2601.19895, table 1).",
            known_against="Deep layers are reported to contribute little; many can be removed (arXiv:2412.13795, arXiv:2502.05795).",
            elsewhere="transformers' Llama calls the feed-forward's pre-norm post_attention_layernorm; timm's pre_norm is a norm "
            "before the first layer.",
        ),
        Entry(
            name="post",
            title="Post-LN",
            formula="x ← N(x + A(x));  x ← N(x + F(x))",
            source="arXiv:1706.03762",
            build=uniform(POST),
            notes="Requires learning-rate warm-up.",
            known_for="The branches of deep layers reach the output undiminished; BERT and the original transformer are Post-LN.",
            known_against="Diverges where Pre-LN trains: perplexity 1409 at 250M and 1411 at 1B (arXiv:2412.13795, table 1).",
        ),
        Entry(
            name="mix",
            title="Mix-LN",
            arguments="(α) or (count)",
            formula="layers 1..⌊αL⌋ Post-LN, the rest Pre-LN",
            source="arXiv:2412.13795",
            build=_mix,
            notes="α is a share of the layers in [0, 1], by default 0.25; an integer of 2 or more is a number of layers. "
            "The paper uses 0.0625 at 32 layers.",
            known_for="Perplexity 33.12/26.07/21.39/18.18 at 71M/130M/250M/1B, against 34.77/26.78/21.92/18.65 for Pre-LN "
            "(arXiv:2412.13795, table 1).",
            known_against="Perplexity 1363 and 1415 at 350M and 1B in a later paper of the same group (arXiv:2502.05795, table 1); behind "
            "Pre-LN at 550M in arXiv:2503.04598, table 13; at 512 layers its limit of the learning rate is near Post-LN's "
            "(arXiv:2601.19895, table 1).",
        ),
        Entry(
            name="hybrid",
            title="HybridNorm",
            arguments="(variant)",
            formula="x ← N(x + A_qkv(x));  x ← x + F(x)",
            source="arXiv:2503.04598",
            build=_hybrid,
            init="megatron",
            notes="Per-head norms on q, k and v before rotary embedding; the feed-forward's Post-Norm is n = N(y), out = n + F(n). "
            "The variants of the paper's ablation use its notation, [pre- or post-][letters from qkvc-]pre or post, by default qkv-post: "
            "for example hybrid(kv-post), hybrid(pre-qkv-post), hybrid(post-pre). The first word is the attention's outer norm, the last "
            "the feed-forward's norm. post in the attention is n = N(x), n + A(n), like the feed-forward: the one form of it in the "
            "authors' code, where attn_residual_after_norm says so; that their table means it by Post-Pre is not stated there.",
            known_for="Perplexity 20.00, against 20.30 for Pre-LN, at 550M parameters and 400B tokens (arXiv:2503.04598, table 13).",
            known_against="Perplexity 20.44 with normal init, against 20.29 for Pre-LN (arXiv:2503.04598, table 5); at 64 layers its limit "
            "of the learning rate is 4.9e-4, against 7.65e-3 for Pre-LN (arXiv:2601.19895, table 1).",
            elsewhere="Levanter's hybrid_norm and OLMo-core's Hybrid* blocks are different placements.",
        ),
        Entry(
            name="hybrid*",
            title="HybridNorm*",
            formula="layer 1: x ← x + A_qkv(N(x));  x ← x + F(N(x));  layers 2..L: HybridNorm",
            source="arXiv:2503.04598",
            build=_hybrid_star,
            init="megatron",
            notes="The best variant in its paper.",
            known_for="Perplexity 19.85 at 550M; mean accuracy 60.67 at 1.2B, against 59.56 for Pre-LN "
            "(arXiv:2503.04598, tables 13 and 12).",
            known_against="See HybridNorm.",
        ),
        Entry(
            name="deepnorm",
            title="DeepNorm",
            formula="x ← N(αx + A(x));  x ← N(αx + F(x)),  α = (2L)^¼",
            source="arXiv:2203.00555",
            build=_deepnorm,
            init="deepnorm",
            notes="Constants for decoder-only models; `deepnorm(2.828)` sets a fixed α. The init scales v, o and the feed-forward by "
            "(8L)^−¼.",
            known_for="Trains 1,000 layers (arXiv:2203.00555); perplexity 22.77 at 250M, where Post-LN diverges "
            "(arXiv:2412.13795, table 1).",
            known_against="Behind Pre-LN at 130M and 250M; perplexity 1411 at 1B (arXiv:2412.13795, table 1).",
            elsewhere="Versions of the Mix-LN authors' code fix α at 2.632 or 2.828 for every depth; these are right for 24 and 32 layers.",
        ),
        Entry(
            name="sandwich",
            title="Sandwich-LN",
            formula="x ← x + N(A(N(x)));  x ← x + N(F(N(x)))",
            source="arXiv:2105.13290",
            build=uniform(SANDWICH),
            known_for="Perplexity 14.55/11.97/10.16 at 130M/350M/1.3B, against 14.67/12.36/10.32 for Pre-LN, with tuned learning rates "
            "(ProRes, table 2).",
            known_against="Perplexity 20.45 at 550M, against 20.30 for Pre-LN (arXiv:2503.04598, table 13).",
            elsewhere="Gemma 2 and 3 use Sandwich-LN (Gemma 3 with QK-norm) and call the norms pre and post.",
        ),
        Entry(
            name="peri",
            title="Peri-LN",
            formula="x ← N(x) once;  x ← x + N(A(N(x)));  x ← x + N(F(N(x)))",
            source="arXiv:2502.02732",
            build=_peri,
            notes="Sandwich-LN with a norm on the embeddings.",
            elsewhere="The name is often used for Sandwich-LN without the norm on the embeddings.",
        ),
        Entry(
            name="res-post",
            title="res-post-norm",
            formula="x ← x + N(A_QK(x));  x ← x + N(F(x))",
            source="OLMo 2, arXiv:2501.00656",
            build=uniform(RES_POST),
            notes="With norms over the full width of q and k, as in OLMo 2.",
            known_against="Perplexity 20.34 at 550M, against 20.30 for Pre-LN (arXiv:2503.04598, table 13).",
            elsewhere="Called Post-Norm in the OLMo 2 report and reordered norm in OLMo-core; it is not Post-LN.",
        ),
        Entry(
            name="lns",
            title="LayerNorm Scaling",
            formula="x ← x + A(N(x)/√l);  x ← x + F(N(x)/√l)",
            source="arXiv:2502.05795",
            build=_lns,
            notes="l is the layer index, the same for both sublayers. Not to be combined with a scaled init.",
            known_for="Perplexity 25.76/20.35/18.20/15.71 at 130M/250M/350M/1B, against 26.73/21.92/19.58/17.02 for Pre-LN "
            "(arXiv:2502.05795, table 1); also ahead with tuned learning rates (ProRes, table 2).",
            elsewhere="The GPAS authors' code initialises the gains with 1/√l and trains them; here the factor is constant.",
        ),
        Entry(
            name="group",
            title="Group-LN",
            arguments="(groups)",
            formula="Pre-LN with a norm within groups of features",
            source="arXiv:1803.08494",
            build=_group_pre,
            notes="By default 4 groups; the number must divide the hidden size. RMSNorm within each group, on every family.",
            elsewhere="torch's GroupNorm subtracts the mean and normalizes over positions as well.",
        ),
        Entry(
            name="admin",
            title="Admin",
            formula="x ← N(ω⊙x + A(x));  x ← N(ω⊙x + F(x))",
            source="arXiv:2004.08249",
            build=uniform(both(Sublayer(stream_out=HOST, skip_gain=Gain(profiled=True)))),
            notes="ω is learnable, one value per feature. It starts at 1 in the first sublayer and then at √(Var[ω⊙x] + Var[branch]) of "
            "the sublayer before, as in the authors' code. The variances are measured in one forward pass over a batch, without dropout: "
            "mixln compare uses the first sequences; elsewhere call mixln.profile(model, batch) before training. Its authors' embeddings "
            "have variance about 1, --init embedding(1)+normal; with Llama's 0.02 the gains come out far below 1.",
            known_for="Trains Post-LN with 72 layers (arXiv:2008.07772).",
        ),
        Entry(
            name="b2t",
            title="B2T connection",
            formula="y ← N(x + A(x));  x ← N(x + y + F(y))",
            source="arXiv:2206.00330",
            build=uniform(replace(POST, bottom_to_top=True)),
            notes="Post-LN with a skip from the layer's input past all of its norms but the last, as in the authors' code "
            "(takase/b2t_connection); its optional scales on that skip and on the rest are left out.",
            known_for="Trains deep Post-LN models and keeps the advantage of Post-LN (arXiv:2206.00330).",
        ),
        Entry(
            name="sub-ln",
            title="Sub-LN (Magneto)",
            formula="x ← x + W_o N(attention(N(x)));  x ← x + W_2 N(act(W_1 N(x)))",
            source="arXiv:2210.06423",
            build=uniform(SUB_LN),
            init="sub-ln",
            notes="The norm before W_o normalizes over the full width. Not available for OLMoE, Mixtral and Qwen3-MoE, "
            "whose experts hold their output projections in one tensor.",
        ),
        Entry(
            name="keel",
            title="KEEL",
            formula="layer 1: Pre-LN;  layers 2..L: x ← N(2L·x + A(N(x)));  x ← N(2L·x + F(N(x)))",
            source="arXiv:2601.19895",
            build=_keel,
            known_for="Trains 1,000 layers at high learning rates and uses depth as well as Post-LN (arXiv:2601.19895).",
        ),
        Entry(
            name="rezero",
            title="ReZero, SkipInit",
            formula="x ← x + a·A(x);  x ← x + a·F(x),  a = 0 at the start",
            source="arXiv:2003.04887, arXiv:2002.10444",
            build=uniform(both(Sublayer(branch_gain=Gain(width="scalar", initial=0.0)))),
            notes="No norm in the layers; one learnable scalar per sublayer.",
        ),
        Entry(
            name="resi-dual",
            title="ResiDual",
            formula="x ← N(x + f), y ← y + f for each branch f(x);  at the end x + N(y)",
            source="arXiv:2304.14802",
            build=_resi_dual,
            notes="Two streams, Post-LN and Pre-LN, fed by the same branches. The model's final norm follows, as in every placement. "
            "The tensor between layers holds both streams side by side, y first; hidden_states are x + N(y).",
        ),
        Entry(
            name="dlcl",
            title="DLCL",
            formula="layer l+1 reads Σ_{k≤l} w_k N_k(y_k), y_0 the embeddings; Pre-LN within the layers",
            source="arXiv:1906.01787",
            build=_dlcl,
            notes="The weights start as a mean. Memory grows with the square of the number of layers. The tensor between layers "
            "holds all N_k(y_k) so far, side by side; hidden_states are the combinations that the next layer reads.",
            known_for="Trained encoders with 30 layers when 6 were usual (arXiv:1906.01787).",
        ),
        *RECENT,
        Entry(
            name="stock",
            title="the family's own placement",
            formula="Llama, Mistral, Mixtral, GPT-2, ViT: Pre-LN;  Qwen3, Qwen3-MoE, OLMoE: with QK-norm;  OLMo 2: res-post;  "
            "Gemma 3: Sandwich-LN with QK-norm",
            source="the family's code or report",
            build=uniform(PRE),
            notes="The stock model as records, with the same logits. GPT-2 then uses init scaled, as its stock model does.",
        ),
        Entry(
            name="mhc",
            title="mHC",
            arguments="(N)",
            formula="N streams X, for each branch f: x ← Σ_i r_i X_i,  X_i ← Σ_j C_ji X_j + w_i f(N(x)),  C doubly stochastic",
            source="arXiv:2512.24880",
            build=_connected("mhc"),
            notes="Manifold-constrained hyper-connections; N is 4 by default. With u = s(W N°(X)) + b, N° a norm without gain over all N·d "
            "features, r = σ(u), w = 2σ(u) and C = 20 Sinkhorn steps on softmax(u), as in transformers' deepseek_v4. Every stream "
            "starts as the embedding; after the last layer, and in hidden_states, the streams become Σ_i r_i X_i with maps of their "
            "own. W starts at N(0, 0.02²) and b at 0, as in deepseek_v4; the gates s start at 0.01, as in the paper (from memory), not "
            "at 1 as there. W decays, b and s do not. The tensor between layers is N times as wide.",
            known_for="The residual stream of DeepSeek-V4 and, with a mean at the end, of GLM-5.3 (transformers 5.24).",
            known_against="In an independent implementation C did not learn with its default start (tokenbender's mHC, issue 2).",
        ),
        Entry(
            name="ihc",
            title="independent hyper-connections",
            arguments="(N)",
            formula="N streams X, for each branch f: x ← Σ_i r_i X_i,  X_i ← X_i + w_i f(N(x))",
            source="Hunyuan 4 (transformers' hy_v4), after arXiv:2512.24880",
            build=_connected("ihc"),
            notes="mHC without the mixing C: every stream keeps itself; N is 4 by default. r = σ(u), w = 2σ(u), u as in mHC. The biases "
            "of r start at −ln(N−1), so that r sums to about 1, the gates s at 0.01, W at N(0, 0.02²), as in hy_v4. W decays, b and s "
            "do not. After the last layer, and in hidden_states, the streams become Σ_i r_i X_i with maps of their own.",
            known_for="The residual stream of tencent/Hy4-preview (transformers 5.24).",
        ),
        Entry(
            name="gated-streams",
            title="gated residual streams",
            arguments="(N)",
            formula="N streams X, for each branch f: x ← mean_i g_i⊙N(X_i),  X_i ← X_i + w_i f(x)",
            source="Qwen4-Exp (transformers' qwen4_exp), after arXiv:2409.19606",
            build=_connected("gated-streams", Layer()),
            notes="N is 4 by default. With H the RMSNorm of each stream, g = σ(W_up silu(W_down H/N)) has one entry per feature "
            "and stream, and w = 2σ(W H/N). The norm of the streams is that of the branch. The rank of g is 320/2048 of d, as in "
            "Qwen4-Exp; all matrices start at N(0, 0.02²) and decay. After the last layer, and in hidden_states, the streams become "
            "mean_i g_i⊙N(X_i); the model's final norm, which Qwen4-Exp does without, follows.",
            known_for="The residual stream of Qwen4-Exp (transformers 5.24).",
        ),
        Entry(
            name="hc",
            title="hyper-connections",
            arguments="(N) or (N,static)",
            formula="N streams X, for each branch f: x ← Σ_i r_i X_i,  X_i ← Σ_j C_ji X_j + w_i f(N(x))",
            source="arXiv:2409.19606",
            build=_hyper,
            notes="N is 4 by default. Dynamic: r = a + s₁ tanh(H v), C = A + s₁ tanh(H V), w = b + s₂ tanh(H u), H the norm of each "
            "stream. At the start a reads stream k mod N in sublayer k, counted from 0, A is the identity and b is 1, v, V and u are 0 and "
            "s is 0.01: that is Pre-LN. hc(4,static) has a, A and b alone. The streams end, and appear in hidden_states, as their sum. "
            "a, A, b and s do not decay; v, V and u do (both from memory of the paper).",
            known_for="ICLR 2025; dynamic hyper-connections with N = 4 train OLMo and OLMoE models faster (arXiv:2409.19606).",
            known_against="Loss spikes at 350B tokens in arXiv:2602.08064; static hyper-connections with the paper's start did not help "
            "in modded-nanogpt (PR 230); NaN in a ViT (lucidrains/hyper-connections, issue 7).",
        ),
        Entry(
            name="siamese",
            title="SiameseNorm",
            formula="for each branch f(N(N(x) + N'(y))): x ← N(x) + f/√(2l),  y ← y + f;  at the end N(x) + N'(y)",
            source="arXiv:2602.08064",
            build=_siamese,
            notes="Two streams, Post-LN and Pre-LN, which every branch reads together; both start as the embedding, all gains at 1. The "
            "form of the authors' DeiT; their language models have HybridNorm's norms on q, k and v in place of the attention's inner "
            "norm: add them with qkvnorm+siamese. The tensor between layers holds y and x side by side; hidden_states are N(x) + N'(y).",
            known_for="1.3B, 100B tokens, learning rates 4e-4/1e-3/2e-3: perplexity 10.57/10.43/10.48, against 11.21/10.84/10.89 for "
            "Pre-LN (arXiv:2602.08064; one seed each).",
        ),
        Entry(
            name="attnres",
            title="attention residuals",
            arguments="(block) or (block,normed)",
            formula="for each branch f(N(x)): x ← Σ_i α_i v_i, α = softmax_i(w·N°(v_i)), v_i the embedding, the sum of the branches of "
            "each earlier block, and that of this block so far",
            source="arXiv:2603.15031",
            build=_attnres,
            notes="Block AttnRes; block is a number of layers that divides the model's, by default the largest up to 6. N° has no gain, "
            "every sublayer has its own w, and so has the end; w starts at 0, a mean, and does not decay. attnres(6,normed) is the form of "
            "Inkling-2: N°(v_i) are the values too, and the scores are divided by √d (its full-attention layers have a w for each of "
            "q, k and v, which is left out). The tensor between layers holds all v_i, side by side: at most L/block + 1 times the stream, "
            "and each layer copies it. hidden_states are the means that the end of the model would read there.",
            known_for="The residual stream of Inkling-2 (transformers 5.24) and of Kimi K3 (arXiv:2607.24653).",
            known_against="No gain at depths 12 and 18 and out of memory in nanochat (PR 646, 648); at 0.6B the training loss was worse, "
            "3.350 against 3.303, and WikiText perplexity better, 55.7 against 60.2 (wdlctc/open-attention-residuals).",
        ),
        Entry(
            name="denseformer",
            title="DenseFormer",
            arguments="(period)",
            formula="after every p-th layer l: x ← Σ_{k≤l} w_k y_k, y_0 the embeddings, y_k the output of layer k; else Pre-LN",
            source="arXiv:2402.02622",
            build=_denseformer,
            notes="The weight of the last output starts at 1 and the others at 0: that is Pre-LN. The period is 1 by default; the paper's "
            "dilation, which leaves out earlier layers, is not offered. The tensor between layers holds all y_k so far, side by side, "
            "and its memory grows with the square of the number of layers; hidden_states are the sums that the next layer reads.",
            known_for="Reaches the perplexity of much deeper transformers (arXiv:2402.02622, abstract, from memory).",
        ),
    )
}


_NUMBER = re.compile(r"[+-]?(\d{1,9}(\.\d{0,18})?|\.\d{1,18}|\d{1,9}/\d{1,9})(e-?\d{1,2})?")


def alpha(text: str) -> Fraction | int:
    """Parses `0.25`, `1/4` or `3` exactly; the integers 0 and 1 are values of α, larger integers are numbers of layers.

    :raises PlacementError: if the text is not such a number.
    """
    try:
        if _NUMBER.fullmatch(text):
            return int(text) if text.lstrip("+-").isdecimal() else Fraction(text)
    except (ValueError, ZeroDivisionError):
        pass
    raise PlacementError(f"mix({text}): α must be a number such as 0.25 or 1/4, or a count such as 3, got {text!r}")


def title(name: str) -> str:
    """The field's name of a placement: `mix(0.25)` → `Mix-LN`; a mixture or a modified one keeps its text."""
    term = re.fullmatch(r"([a-z-]+\*?)(\([^()]*\))?", name)
    return ZOO[term[1]].title if term and term[1] in ZOO else name
