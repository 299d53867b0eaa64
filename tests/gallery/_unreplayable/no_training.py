import sys

import numpy as np
from sklearn.datasets import load_iris

data = load_iris()
print("python", sys.version.split()[0])
for name, column in zip(data.feature_names, data.data.T):
    print(f"{name:20s} mean {np.mean(column):.2f} std {np.std(column):.2f}")
