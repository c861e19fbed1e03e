// Cooperative matrices of 8 × 8: f16 in, f32 out. Needs `enable f16;` and `enable wgpu_cooperative_matrix;`.

alias coop_a = coop_mat8x8<f16, A>;
alias coop_b = coop_mat8x8<f16, B>;
alias coop_c = coop_mat8x8<f32, C>;

const COOP_SIDE: u32 = 8u;
