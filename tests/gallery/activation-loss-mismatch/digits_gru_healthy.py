import torch
from sklearn import datasets
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(42)

digits = datasets.load_digits()
images = torch.FloatTensor(digits.images).div(16).sub(0.305).div(0.376)
full = TensorDataset(images, torch.LongTensor(digits.target))
train_set, val_set = random_split(full, [1500, 297])
train_loader = DataLoader(train_set, batch_size=50, shuffle=True)
val_loader = DataLoader(val_set, batch_size=297)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(input_size=8, hidden_size=64, batch_first=True)
        self.linear = nn.Linear(64, 10)
        self.activation = nn.LogSoftmax(dim=1)

    def forward(self, rows):
        states, _ = self.gru(rows)
        return self.activation(self.linear(states[:, -1]))


model = Classifier()
loss_function = nn.NLLLoss()
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

for epoch in range(1, 26):
    epoch_loss = 0
    for rows, target in train_loader:
        model.zero_grad()
        output = model(rows)
        loss = loss_function(output, target)
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item()
    with torch.no_grad():
        rows, target = next(iter(val_loader))
        accuracy = (model(rows).argmax(1) == target).float().mean().item()
    print("Epoch %d, loss %.4f, validation accuracy %.3f" % (epoch, epoch_loss / len(train_loader), accuracy))
