//! Nothing: the package stands for its dependency.
