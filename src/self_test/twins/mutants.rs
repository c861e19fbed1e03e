//! What is broken in mutants: at least one a kernel and one a weight format. A twin test that misses one is too blunt.

use crate::self_test::rig::Mutation;

/// A mutation, and the twin test that must notice it.
pub(super) struct Mutant {
    pub(super) twin: &'static str,
    /// Whether the mutation is in the subgroup form of a reduction.
    pub(super) subgroups: bool,
    pub(super) mutation: Mutation,
}

const fn mutant(twin: &'static str, kernel: &'static str, what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { twin, subgroups: false, mutation: Mutation { kernel, what, from, to } }
}

const fn subgroups(mutant: Mutant) -> Mutant {
    Mutant { subgroups: true, ..mutant }
}

pub(super) const ALL: &[Mutant] = &[
    // Weight formats, through the embedding and through a product.
    mutant("embedding/f32", "embedding", "columns_shifted", "block * 8u;", "block * 8u + 1u;"),
    mutant("embedding/f16", "embedding", "quads_swapped", "out.quads[2u * i + 1u] =", "out.quads[(2u * i + 3u) % 8u] ="),
    mutant("embedding/bf16", "embedding", "low_bits_kept", "low & 0xffff0000u", "low"),
    mutant("embedding/q8_0", "embedding", "signs_ignored", "unpack4xI8(word.w)", "unpack4xU8(word.w)"),
    mutant("embedding/q4_0", "embedding", "zero_point", "(word[i] & 0x0f0f0f0fu)) - 8.0", "(word[i] & 0x0f0f0f0fu)) - 7.0"),
    mutant("embedding/q4_1", "embedding", "minimum_ignored", "(word[i] & 0x0f0f0f0fu)) + scale.y", "(word[i] & 0x0f0f0f0fu))"),
    mutant("embedding/q5_0", "embedding", "high_bits_ignored", "| weight_fifth(high, i);", ";"),
    mutant("embedding/q5_0", "embedding", "one_high_bit_lost", "(bits & 8u) << 25u", "(bits & 8u) << 26u"),
    mutant("embedding/q5_1", "embedding", "second_half_high_bits", "weight_fifth(high, i + 4u)", "weight_fifth(high, i)"),
    mutant("embedding/q4_k", "embedding", "minimum_ignored", "unpack4xU8(word.z)) - scale.y", "unpack4xU8(word.z))"),
    mutant("embedding/q4_k", "embedding", "scale_high_bits", "(((packed.x >> (shift + 6u)) & 3u) << 4u)", "0u"),
    mutant("embedding/q5_k", "embedding", "high_bits_ignored", "low | (high << vec4<u32>(4u))", "low"),
    mutant("embedding/q5_k", "embedding", "minimum_high_bits", "(((packed.y >> (shift + 6u)) & 3u) << 4u)", "0u"),
    mutant("embedding/q6_k", "embedding", "one_scale_for_32", "select(scales.x, scales.y, i == 1u)", "scales.x"),
    mutant("embedding/q6_k", "embedding", "high_bits_ignored", "| ((high & vec4<u32>(0x03030303u)) << vec4<u32>(4u))", ""),
    mutant("matvec/q4_1", "matvec", "minimum_ignored", "(word[i] & 0x0f0f0f0fu)) + scale.y", "(word[i] & 0x0f0f0f0fu))"),
    mutant("matmul/q6_k", "matmul", "one_scale_for_32", "select(scales.x, scales.y, i == 1u)", "scales.x"),
    // Kernels.
    mutant("embedding/f32", "embedding", "samples_ignored", "id = samples[id & ~SAMPLED];", "id = id & ~SAMPLED;"),
    mutant("embedding/f32", "embedding", "other_rows_clamped", "id - params.first_row >= params.rows", "false"),
    mutant("rms_norm", "rms_norm", "eps_dropped", "+ params.eps", ""),
    mutant("rms_norm", "rms_norm", "weight_left_out", "* weight[quad] * scale", "* scale"),
    mutant("rms_norm", "rms_norm", "mean_over_padding", "f32(params.cols)", "f32(quads * 4u)"),
    mutant("rms_norm", "rms_norm", "gather_ignored", "row = rows[row];", ""),
    mutant("rms_norm", "rms_norm", "residual_not_written", "residual[read_base + quad] = value;", ""),
    mutant("rms_norm", "rms_norm", "reduction_one_step_short", "stride > 0u; stride /= 2u) {\n        if builtins.lane < stride {\n            reduce_partial[builtins.lane] +=", "stride > 1u; stride /= 2u) {\n        if builtins.lane < stride {\n            reduce_partial[builtins.lane] +="),
    subgroups(mutant("rms_norm", "rms_norm", "last_subgroup_lost", "i < builtins.subgroups; i++) {\n        sum +=", "i < builtins.subgroups - 1u; i++) {\n        sum +=")),
    mutant("matvec/f32", "matvec", "bias_left_out", "value += bias[params.first_col + col];", ""),
    mutant("matvec/f32", "matvec", "bias_of_another_column", "bias[params.first_col + col]", "bias[col]"),
    mutant("matvec/f32", "matvec", "first_stretches_only", "block < params.blocks; block += LANES", "block < min(params.blocks, LANES); block += LANES"),
    mutant("matvec/f32", "matvec", "past_the_last_column", "&& col < params.cols {", "{"),
    mutant("matmul/f32", "matmul", "bias_left_out", "value += bias[params.first_col + col];", ""),
    mutant("matmul/f32", "matmul", "last_stretch_lost", "block < params.blocks; block++", "block < params.blocks - 1u; block++"),
    mutant("matmul/f32", "matmul", "past_the_last_row", "row < params.rows && col", "col"),
    mutant("matmul/f32", "matmul", "one_quad_lost", "for (var i = 0u; i < 8u; i++) {\n                var values", "for (var i = 0u; i < 7u; i++) {\n                var values"),
    mutant("rope_append", "rope_append", "turned_backwards", "first * turn.x - second * turn.y", "first * turn.x + second * turn.y"),
    mutant("rope_append", "rope_append", "high_positions_ignored", "LOW_POSITIONS + position / LOW_POSITIONS", "LOW_POSITIONS"),
    mutant("rope_append", "rope_append", "values_turned", "if kind != VALUE {", "if true {"),
    mutant("rope_append", "rope_append", "keys_normed_as_queries", "scale * k_norm[first_col]", "scale * q_norm[first_col]"),
    mutant("rope_append", "rope_append", "eps_dropped", "+ params.eps", ""),
    mutant("rope_append", "rope_append", "slot_of_the_token", "params.slots + place.y", "params.slots + token"),
    mutant("attention_vector", "attention_vector", "own_key_masked", "position <= ends", "position < ends"),
    mutant("attention_vector", "attention_vector", "window_one_longer", "position + params.window > ends", "position + params.window >= ends"),
    mutant("attention_vector", "attention_vector", "scale_left_out", "* params.scale_log2", ""),
    mutant("attention_vector", "attention_vector", "sums_not_rescaled", "sums[i] *= rescale;", ""),
    mutant("attention_vector", "attention_vector", "next_kv_head", "item.kv_head * params.slots", "min(item.kv_head, 0u) * params.slots"),
    mutant("attention_vector", "attention_vector", "partials_divided", "= sums[c][r];", "= sums[c][r] / total[r];"),
    mutant("attention_tile", "attention_tile", "own_key_masked", "key_position <= vec4<u32>(position)", "key_position < vec4<u32>(position)"),
    mutant("attention_tile", "attention_tile", "window_one_longer", "key_position + params.window > vec4", "key_position + params.window >= vec4"),
    mutant("attention_tile", "attention_tile", "scale_left_out", "* params.scale_log2", ""),
    mutant("attention_tile", "attention_tile", "total_not_rescaled", "total = total * rescale", "total = total"),
    mutant("attention_tile", "attention_tile", "last_keys_skipped", "max(last_position + 1u, item", "max(last_position, item"),
    mutant("attention_tile", "attention_tile", "repeated_key_counted", "\n            & (vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(item.count))", ""),
    mutant("attention_merge", "attention_merge", "parts_not_rescaled", "* rescale;\n        }", ";\n        }"),
    mutant("attention_merge", "attention_merge", "last_part_lost", "var i = 0u; i < merge.parts", "var i = 0u; i < merge.parts - 1u"),
    mutant("gated_activation", "gated_activation", "gate_alone", "silu(gate) * up", "silu(gate)"),
    mutant("gated_activation", "gated_activation", "gelu_cubic_term", "0.044715", "0.044"),
    mutant("gated_activation", "gated_activation", "no_clamp", "clamp(inner, vec4<f32>(-15.0), vec4<f32>(15.0))", "inner * 0.99"),
    mutant("adjust_logits", "adjust_logits", "negative_logits_divided", "logit * adjustment.repetition", "logit / adjustment.repetition"),
    mutant("adjust_logits", "adjust_logits", "one_too_many", "index >= params.count", "index > params.count"),
    mutant("argmax", "argmax", "last_of_equal", "-f32(best_col)", "f32(best_col)"),
    mutant("argmax", "argmax", "last_column_lost", "col < params.cols;", "col < params.cols - 1u;"),
    mutant("argmax", "argmax", "a_number_where_there_is_none", "NONE, lowest == LEAST", "NONE, false"),
    subgroups(mutant("argmax", "argmax", "last_subgroup_lost", "i < builtins.subgroups; i++) {\n        largest =", "i < builtins.subgroups - 1u; i++) {\n        largest =")),
    mutant("top_k", "top_k", "temperature_ignored", "* inverse_temperature);", ");"),
    mutant("top_k", "top_k", "negative_keys_unordered", "select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u)", "bits ^ 0x80000000u"),
    mutant("top_k", "top_k", "left_out_not_counted", "atomicLoad(&equal) - wanted", "0u"),
    mutant("cross_entropy", "cross_entropy", "another_target", "targets[group.x]", "targets[0]"),
    mutant("cross_entropy", "cross_entropy", "largest_left_out", "log(total) + largest", "log(total)"),
];
