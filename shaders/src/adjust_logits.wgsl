// Penalties on the logits of tokens that a sequence already holds: a repetition penalty divides positive logits and
// multiplies negative ones; what presence and frequency penalties sum to is subtracted.
// A lane an adjustment; no two name the same logit.
// Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1, with negative logits multiplied as Hugging Face does.

struct LogitAdjustment {
    row: u32,
    token: u32,
    repetition: f32,
    subtract: f32,
}

struct AdjustLogitsParams {
    count: u32,
    stride: u32,  // from one row of logits to the next
}

var<immediate> params: AdjustLogitsParams;

@group(0) @binding(0) var<storage, read> adjustments: array<LogitAdjustment>;  // [count]
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;             // [rows, stride]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn adjust_logits(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group.x * LANES + lane;
    if index >= params.count {
        return;
    }
    let adjustment = adjustments[index];
    let at = adjustment.row * params.stride + adjustment.token;
    let logit = logits[at];
    let scaled = select(logit * adjustment.repetition, logit / adjustment.repetition, logit > 0.0);
    logits[at] = scaled - adjustment.subtract;
}
