//! Layouts against values placed one by one.
