//! What can go wrong for reasons outside this program: the adapter, files, users.

use std::path::PathBuf;

/// Every failure of the root package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No driver offers an adapter.
    #[error(
        "no Vulkan, Metal or DX12 adapter was found; `tools/demo` sets up software Vulkan where there is no GPU \
         (on Debian and Ubuntu the package is mesa-vulkan-drivers)"
    )]
    NoAdapter,
    /// The user asked for an adapter that is not there.
    #[error("no adapter matches {wanted:?}; there are: {}", found.join("; "))]
    UnknownAdapter {
        /// An index or a part of a name.
        wanted: String,
        /// Index, name, backend and type of each adapter.
        found: Vec<String>,
    },
    /// The adapter cannot run any kernel of this program.
    #[error("{adapter} lacks {feature}, which every kernel needs; choose another adapter or update its driver")]
    MissingFeature {
        /// The adapter's name.
        adapter: String,
        /// What it lacks.
        feature: String,
    },
    /// The driver refused to open the adapter.
    #[error("{adapter} cannot be opened: {message}")]
    OpenAdapter {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        message: String,
    },
    /// A buffer that the adapter could never hold.
    #[error("{adapter} allows buffers of at most {limit} bytes; {label} needs {bytes}")]
    BufferTooLarge {
        /// The adapter's name.
        adapter: String,
        /// The buffer's name.
        label: String,
        /// Its size.
        bytes: u64,
        /// The largest that can be.
        limit: u64,
    },
    /// The adapter's memory is full.
    #[error("{adapter} is out of memory: {label} needs {bytes} bytes more")]
    OutOfMemory {
        /// The adapter's name.
        adapter: String,
        /// What was to be allocated.
        label: String,
        /// Its size.
        bytes: u64,
    },
    /// A kernel that the adapter's compiler, or naga, refused.
    #[error("kernel {variant} cannot be compiled: {message}")]
    Pipeline {
        /// Kernel, parts and schedule.
        variant: String,
        /// The compiler's words.
        message: String,
    },
    /// wgpu or the driver refused recorded work: a bug here or there.
    #[error("{adapter} refused the work it was given: {message}")]
    Rejected {
        /// The adapter's name.
        adapter: String,
        /// wgpu's words.
        message: String,
    },
    /// The adapter stopped answering; nothing that it held can be had back.
    #[error("{adapter} was lost: {reason}")]
    DeviceLost {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The model's heads are wider than the attention kernels are made for.
    #[error("head_dim is {met}; attention is built for heads of at most 256 columns")]
    HeadTooWide {
        /// Columns of a head.
        met: usize,
    },
    /// Rows of logits that no kernel can read.
    #[error(
        "a vocabulary of {met} tokens makes rows of logits of {row_bytes} bytes; the adapter binds {limit} bytes at once, and \
         at most 16,777,216 columns are supported"
    )]
    VocabularyTooLarge {
        /// Tokens of the vocabulary.
        met: usize,
        /// Bytes of a row of logits.
        row_bytes: u64,
        /// The largest binding.
        limit: u64,
    },
    /// Not even one token at a time fits.
    #[error("a step of one token needs an array of {bytes} bytes; the adapter binds at most {limit} bytes at once")]
    StepTooLarge {
        /// The largest array.
        bytes: u64,
        /// The largest binding.
        limit: u64,
    },
    /// A weight matrix whose rows are too long to upload.
    #[error("tensor {name} has rows of {met} bytes; at most {limit} are supported")]
    RowTooLong {
        /// The tensor.
        name: String,
        /// Bytes of its rows on the GPU.
        met: usize,
        /// The most.
        limit: usize,
    },
    /// A request that cannot be run.
    #[error("{message}")]
    Request {
        /// What is wrong with it, what was met and what was wanted.
        message: String,
    },
    /// A request that was begun and could not be ended.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
    },
    /// The engine was shut down, or could not be started anew.
    #[error("the engine takes no requests: {reason}")]
    EngineDown {
        /// Why.
        reason: String,
    },
    /// The model computed no number.
    #[error(
        "the logits are not numbers: the checkpoint is damaged or overflows f16; try --dtype f32, or fetch it again"
    )]
    NotANumber,
    /// A file or a stream that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file, or `standard output`.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Model(#[from] raglan_models::Error),
    /// A dataset or weights of the tuner cannot be used.
    #[error(transparent)]
    Tuner(#[from] raglan_tuner::Error),
}
