// Cooperative matrices of 16 × 16: f16 in, f32 out. Needs `enable f16;` and `enable wgpu_cooperative_matrix;`.

alias coop_a = coop_mat16x16<f16, A>;
alias coop_b = coop_mat16x16<f16, B>;
alias coop_c = coop_mat16x16<f32, C>;

const COOP_SIDE: u32 = 16u;
