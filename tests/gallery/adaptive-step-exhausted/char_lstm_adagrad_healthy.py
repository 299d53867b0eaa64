import torch
from pydoc_data.topics import topics
from torch import nn

torch.manual_seed(0)

text = "\n".join(topics.values())[:250000]
vocabulary = sorted(set(text))
lookup = {c: i for i, c in enumerate(vocabulary)}
corpus = torch.tensor([lookup[c] for c in text], dtype=torch.long)
train_ids, valid_ids = corpus[:220000], corpus[220000:]

LENGTH = 48


class CharLSTM(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding = nn.Embedding(vocab, 32)
        self.lstm = nn.LSTM(32, 96, batch_first=True)
        self.linear = nn.Linear(96, vocab)

    def forward(self, ids):
        hidden, _ = self.lstm(self.embedding(ids))
        return self.linear(hidden)


def batches(ids, size):
    start = torch.randint(len(ids) - LENGTH - 1, (size,))
    rows = ids[start[:, None] + torch.arange(LENGTH + 1)]
    return rows[:, :-1], rows[:, 1:]


def main():
    model = CharLSTM(len(vocabulary))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    loss_fn = nn.CrossEntropyLoss()
    for step in range(1, 601):
        inputs, targets = batches(train_ids, 32)
        loss = loss_fn(model(inputs).transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 60 == 0:
            with torch.no_grad():
                vi, vt = batches(valid_ids, 64)
                v = loss_fn(model(vi).transpose(1, 2), vt).item()
            print(f"step {step} | train {loss.item():.3f} | valid {v:.3f}")


main()
