"""The examples and tests that fairret and FairTorch publish run here, with the import line changed."""

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from helpers import losses
from helpers.bias import statistics as of


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))


@pytest.mark.parametrize(
    "loss",
    [losses.NormLoss, losses.LSELoss, losses.KLProjectionLoss, losses.JensenShannonProjectionLoss,
     losses.TotalVariationProjectionLoss, losses.SquaredEuclideanProjectionLoss],
)  # fmt: skip
@pytest.mark.parametrize("short", ["rate", "accuracy", "odds"])
def test_the_tests_that_fairret_publishes(loss, short, net):
    feat = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    sens = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    label = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    statistic, labels = {
        "rate": (of.PositiveRate(), ()),
        "accuracy": (of.Accuracy(), (label,)),
        "odds": (of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()), (label,)),
    }[short]
    fair = loss(statistic)
    for _ in range(5):
        value = fair(net(feat), sens, *labels)
        assert value.item() >= 0
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        net.zero_grad()


def test_the_readme_example_of_fairret_runs():
    dice = torch.Generator().manual_seed(0)
    feat = torch.randn(64, 5, generator=dice)
    sens = F.one_hot(torch.randint(2, (64,), generator=dice), 2).float()
    target = torch.randint(2, (64, 1), generator=dice).float()
    model = nn.Linear(5, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    statistic = of.PositiveRate()
    norm_fairret = losses.NormLoss(statistic)

    def train(model, optimizer, train_loader):
        for feat, sens, target in train_loader:
            optimizer.zero_grad()
            logit = model(feat)
            bce_loss = F.binary_cross_entropy_with_logits(logit, target)
            fairret_loss = norm_fairret(logit, sens)
            loss = bce_loss + fairret_loss
            loss.backward()
            optimizer.step()

    train(model, optimizer, DataLoader(list(zip(feat, sens, target, strict=True)), batch_size=16))
    assert all(p.isfinite().all() for p in model.parameters())


class SensitiveDataset(Dataset):
    def __init__(self, x, y, sensitive):
        self.x, self.y, self.sensitive = x, y, sensitive
        categories = sensitive.unique().numpy()
        self.category_to_index_dict = dict(zip(list(categories), range(len(categories)), strict=True))
        self.sensitive_ids = [self.category_to_index_dict[i] for i in self.sensitive.numpy().tolist()]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, idx):
        return self.x[idx], self.y[idx], self.sensitive_ids[idx]


@pytest.mark.parametrize("constraints", [losses.DemographicParityLoss(), losses.EqualiedOddsLoss()])
def test_the_readme_example_of_fairtorch_runs(constraints):
    """Two logits an image and integer labels, as its README has them."""
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 16, generator=dice), torch.randint(0, 2, (128,), generator=dice)
    loader = DataLoader(SensitiveDataset(x, y, torch.randint(0, 2, (128,), generator=dice)), batch_size=64)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer, criterion = optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    for x, y, sensitive_features in loader:
        optimizer.zero_grad()
        logit = model(x)
        penalty = constraints(x, logit, sensitive_features, y)
        (criterion(logit, y) + 0.5 * penalty).backward()
        optimizer.step()
    assert penalty >= 0 and all(p.isfinite().all() for p in model.parameters())


def test_the_other_tests_that_fairtorch_publishes():
    assert isinstance(losses.ConstraintLoss(), losses.ConstraintLoss)
    out, sensitive = torch.randn(128, 2), torch.randint(0, 2, (128,))
    assert losses.DemographicParityLoss(sensitive_classes=[0, 1]).mu_f(None, out, sensitive).size(0) == 3
    rates = losses.EqualiedOddsLoss(sensitive_classes=[0, 1]).mu_f(None, out.sigmoid(), sensitive, y=torch.randint(0, 2, (128,)))
    assert rates.size(0) == 6
