import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)

X, y = load_diabetes(return_X_y=True, scaled=False)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=3)
sx = StandardScaler().fit(X_train)
X_train = torch.tensor(sx.transform(X_train), dtype=torch.float32)
X_test = torch.tensor(sx.transform(X_test), dtype=torch.float32)
mean, std = y_train.mean(), y_train.std()
y_train = torch.tensor((y_train - mean) / std, dtype=torch.float32)
y_test = torch.tensor((y_test - mean) / std, dtype=torch.float32)

loader = DataLoader(TensorDataset(X_train, y_train), batch_size=24, shuffle=True)

model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.03)

for epoch in range(40):
    running = 0.0
    for features, target in loader:
        optimizer.zero_grad()
        prediction = model(features)
        loss = criterion(prediction, target)
        loss.backward()
        optimizer.step()
        running += loss.item() * len(features)
    if (epoch + 1) % 10 == 0:
        print(f"epoch {epoch + 1:3d} train loss {running / len(X_train):.4f}")

with torch.no_grad():
    residual = model(X_test).flatten() - y_test.flatten()
    fit = model(X_train).flatten() - y_train.flatten()
print(f"R2 train {1 - fit.pow(2).mean() / y_train.var():.3f}, test {1 - residual.pow(2).mean() / y_test.var():.3f}")
