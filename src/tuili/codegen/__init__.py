"""From a program to native code: kernel families, C text, targets, the C compiler."""
