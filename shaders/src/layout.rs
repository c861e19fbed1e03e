//! Structs that host and shader share, described by field so that a test can hold both sides together.

/// A type that lies in a buffer or in immediates as its WGSL struct of the same name does.
pub trait GpuStruct: bytemuck::Pod {
    /// The fields, as Rust lays them out.
    const LAYOUT: StructLayout;
}

/// A struct's name, size and fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructLayout {
    /// The same in Rust and WGSL.
    pub name: &'static str,
    /// Size in bytes.
    pub bytes: usize,
    /// In order.
    pub fields: &'static [Field],
}

/// A field of a shared struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The same in Rust and WGSL.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Its type.
    pub scalar: Scalar,
}

/// The types that a shared struct may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types' own")]
pub enum Scalar {
    U32,
    I32,
    F32,
}

/// Names the WGSL type of a Rust scalar; what has no such type cannot be a field.
pub trait AsScalar {
    /// The type.
    const SCALAR: Scalar;
}

impl AsScalar for u32 {
    const SCALAR: Scalar = Scalar::U32;
}
impl AsScalar for i32 {
    const SCALAR: Scalar = Scalar::I32;
}
impl AsScalar for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

/// Declares a struct of scalars with its [`StructLayout`].
macro_rules! gpu_struct {
    ($(#[$outer:meta])* pub struct $name:ident { $($(#[$inner:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$outer])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$inner])* pub $field: $ty,)* }

        impl $crate::GpuStruct for $name {
            const LAYOUT: $crate::StructLayout = $crate::StructLayout {
                name: stringify!($name),
                bytes: size_of::<$name>(),
                fields: &[$($crate::Field {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($name, $field),
                    scalar: <$ty as $crate::layout::AsScalar>::SCALAR,
                },)*],
            };
        }
    };
}
pub(crate) use gpu_struct;
