use super::{Ops, Rows};
use crate::gpu::Buffer;
use crate::kv_cache::KvLayer;
use raglan_shaders::rope_append::{KERNEL, RopeAppendParams};
use raglan_shaders::{KvType, Part, Work};

/// Heads and where they lie in a row of q·k·v.
#[derive(Debug, Clone, Copy)]
pub struct RopeShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Columns that turn.
    pub rotary_dim: usize,
    /// Where keys start in a row.
    pub k_col: usize,
    /// Where values start in a row.
    pub v_col: usize,
}

impl RopeShape {
    /// Columns of a head in q and in a cache of type `kv`.
    ///
    /// # Panics
    /// If heads are wider than the kernels are made for.
    pub fn head_stride(&self, kv: KvType) -> usize {
        kv.head_stride(self.head_dim).expect("the heads' width was checked")
    }
}

/// Norms of queries and keys, and their epsilon.
pub type QkNorm<'a> = Option<(&'a Buffer, &'a Buffer, f64)>;

impl Ops<'_> {
    /// Turns queries and keys by their positions, writes queries to `q` and keys and values to the cache.
    /// `places` is `[tokens]` of (position, slot).
    #[expect(clippy::too_many_arguments, reason = "one line an op in the decoder reads better than a struct")]
    pub fn rope_append(
        &mut self,
        qkv: &Rows,
        places: &Buffer,
        tokens: usize,
        shape: &RopeShape,
        rope: &Buffer,
        norm: QkNorm<'_>,
        q: &Rows,
        (kv, slots): (&KvLayer, usize),
    ) {
        let head_stride = shape.head_stride(kv.kv);
        assert_eq!(q.stride, shape.num_heads * head_stride, "columns of q");
        let params = RopeAppendParams {
            num_heads: shape.num_heads as u32,
            num_kv_heads: shape.num_kv_heads as u32,
            head_dim: shape.head_dim as u32,
            rotary_dim: shape.rotary_dim as u32,
            qkv_stride: qkv.stride as u32,
            k_col: shape.k_col as u32,
            v_col: shape.v_col as u32,
            head_stride: head_stride as u32,
            slots: slots as u32,
            norm: u32::from(norm.is_some()),
            eps: norm.map_or(0.0, |(_, _, eps)| eps as f32),
            rotation: kv.rotation as u32,
        };
        let types = self.kernels.types;
        let variant = KERNEL.variant(&[types.act, Part::Kv(kv.kv), types.reduce], KERNEL.default_schedule());
        let absent = &self.kernels.absent;
        let (q_norm, k_norm) = norm.map_or((absent, absent), |(q, k, _)| (q, k));
        let buffers = [&qkv.buffer, places, rope, q_norm, k_norm, &q.buffer, &kv.k, &kv.v, &kv.scales, &kv.k_mean]
            .map(Into::into);
        let heads = shape.num_heads + 2 * shape.num_kv_heads;
        let (q_cols, kv_cols) = (shape.num_heads * shape.head_dim, 2 * shape.num_kv_heads * shape.head_dim);
        let write = q_cols * types.act_bytes() + shape.num_kv_heads * kv.kv.row_bytes(shape.head_dim);
        self.recorder.work(|| Work::rows("rope_append", tokens, q_cols + kv_cols, 4 * (q_cols + kv_cols), write));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [tokens as u32, heads as u32, 1]);
    }
}
