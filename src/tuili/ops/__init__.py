"""The operator table: signature, shape rule and NumPy meaning of every operator."""
