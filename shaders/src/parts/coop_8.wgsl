// Cooperative matrices of 8 × 8: f16 in, f32 out. Needs `enable f16;` and `enable wgpu_cooperative_matrix;`.

alias coop_a = coop_mat8x8<f16, A>;
alias coop_b = coop_mat8x8<f16, B>;
alias coop_c = coop_mat8x8<f32, C>;

const COOP_SIDE: u32 = 8u;

// What staged f16 lie in: scalars, the only ones that Metal loads matrices from.
alias coop_word = f16;
const COOP_WORD: u32 = 1u;

// The word of a quad that begins at its value `first`.
fn coop_word_of(quad: vec4<f16>, first: u32) -> coop_word {
    return quad[first];
}
