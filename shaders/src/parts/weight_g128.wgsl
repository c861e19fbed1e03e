// A group of integers is 128 values.

const WEIGHT_BLOCK_VALUES: u32 = 128u;
