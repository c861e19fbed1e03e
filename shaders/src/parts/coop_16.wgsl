// Cooperative matrices of 16 × 16: f16 in, f32 out. Needs `enable f16;` and `enable wgpu_cooperative_matrix;`.

alias coop_a = coop_mat16x16<f16, A>;
alias coop_b = coop_mat16x16<f16, B>;
alias coop_c = coop_mat16x16<f32, C>;

const COOP_SIDE: u32 = 16u;

// What staged f16 lie in: quads, so that a driver knows how loads and stores are aligned.
alias coop_word = vec4<f16>;
const COOP_WORD: u32 = 4u;

// The word of a quad that begins at its value `first`.
fn coop_word_of(quad: vec4<f16>, first: u32) -> coop_word {
    return quad;
}
