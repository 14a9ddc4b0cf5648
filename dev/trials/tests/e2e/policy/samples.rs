//! One request of each RPC, and what it is answered when its caller is let in.

use serde_json::{Value, json};
use stack::client::random_password;
use uuid::Uuid;

use crate::new_sku;

/// The ids that a request names: those of a customer, or of nothing.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) user: String,
    pub(super) session: String,
    pub(super) order: String,
    pub(super) payment: String,
    /// Of the user.
    pub(super) password: String,
}

impl Ids {
    /// Of nothing that exists.
    pub(super) fn of_nothing() -> Self {
        let new = || Uuid::now_v7().to_string();
        Self { user: new(), session: new(), order: new(), payment: new(), password: random_password() }
    }

    pub(super) fn all(&self) -> [&str; 4] {
        [&self.user, &self.session, &self.order, &self.payment]
    }
}

/// Whose data an RPC reads or changes, and the reason of its response to a caller that is let in; empty for a success.
pub(super) enum Data {
    /// That of the customer whose ids the request names. The reason is for ids of nothing, and for those of somebody else.
    Named(&'static str),
    /// The caller's own; the request names no ids.
    Own,
    /// That of the shop, or only what is in the request.
    Shop(&'static str),
}

impl Data {
    /// Of the response to a caller who is let in, and names nothing of theirs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Named(reason) | Self::Shop(reason) => reason,
            Self::Own => "",
        }
    }
}

use Data::{Named, Own, Shop};

/// A valid request as JSON, different each time. There is none for an RPC that is not in this table.
pub(super) fn sample(rpc: &str, ids: &Ids, taken_sku: &str) -> Option<(Value, Data)> {
    let Ids { user, session, order, payment, password } = ids;
    let (nobody, sku) = (Uuid::now_v7().to_string(), new_sku());
    let email = || format!("{}@example.com", Uuid::now_v7().simple());
    let price = json!({"currency": "EUR", "minor": "100"});
    Some(match rpc.strip_prefix("souk.")? {
        "user.v1.UserService.RegisterUser" => {
            let common = json!({"email": email(), "password": "passwordpassword", "displayName": "A customer"});
            (common, Shop("PASSWORD_COMMON"))
        }
        "user.v1.UserService.GetUser" => (json!({"userId": user}), Named("USER_NOT_FOUND")),
        "user.v1.UserService.UpdateUser" => {
            (json!({"user": {"userId": user, "displayName": "Another name"}}), Named("USER_NOT_FOUND"))
        }
        "user.v1.UserService.ChangePassword" => {
            let passwords = json!({"userId": user, "currentPassword": password, "newPassword": random_password()});
            (passwords, Named("USER_NOT_FOUND"))
        }
        "user.v1.UserService.EraseUser" => (json!({"userId": user}), Named("USER_NOT_FOUND")),
        "user.v1.UserService.DisableUser" | "user.v1.UserService.EnableUser" => {
            (json!({"userId": nobody}), Shop("USER_NOT_FOUND"))
        }
        "user.v1.UserService.RequestPasswordReset" => (json!({"email": email()}), Shop("")),
        "user.v1.UserService.ResetPassword" => {
            (json!({"token": "guessed", "newPassword": random_password()}), Shop("MAIL_TOKEN_INVALID"))
        }
        "user.v1.UserService.VerifyEmail" => (json!({"token": "guessed"}), Shop("MAIL_TOKEN_INVALID")),
        "user.v1.UserService.GetMailLink" => (json!({"mailRequestId": nobody}), Shop("MAIL_REQUEST_NOT_FOUND")),
        "user.v1.UserService.GetContact" => (json!({"userId": nobody}), Shop("USER_NOT_FOUND")),
        "user.v1.UserService.ReportRefusedEmail" => {
            (json!({"userId": nobody, "refuseTime": "2026-01-01T00:00:00Z"}), Shop("USER_NOT_FOUND"))
        }
        "user.v1.SessionService.CreateSession" => {
            (json!({"email": email(), "password": random_password()}), Shop("CREDENTIALS_INVALID"))
        }
        "user.v1.SessionService.RefreshSession" => {
            (json!({"refreshToken": random_password()}), Shop("REFRESH_TOKEN_INVALID"))
        }
        "user.v1.SessionService.ListSessions" => (json!({}), Own),
        "user.v1.SessionService.DeleteSession" => (json!({"sessionId": session}), Named("SESSION_NOT_FOUND")),
        "product.v1.ProductService.CreateProduct" => {
            (json!({"product": {"sku": taken_sku, "title": "A thing", "price": price}}), Shop("SKU_TAKEN"))
        }
        "product.v1.ProductService.UpdateProduct" => {
            (json!({"product": {"productId": nobody, "title": "Another thing"}}), Shop("PRODUCT_NOT_FOUND"))
        }
        "product.v1.ProductService.ArchiveProduct" | "product.v1.ProductService.GetProduct" => {
            (json!({"productId": nobody}), Shop("PRODUCT_NOT_FOUND"))
        }
        "product.v1.ProductService.BatchGetProducts" | "product.v1.ProductService.QuoteItems" => {
            (json!({"productIds": [nobody]}), Shop(""))
        }
        "product.v1.ProductService.ListProducts"
        | "product.v1.ProductService.ListArchivedProducts"
        | "product.v1.ProductService.ListCategories" => (json!({"pageSize": 1}), Shop("")),
        "product.v1.ProductService.SearchProducts" => (json!({"query": "nothing-has-this"}), Shop("")),
        "product.v1.ProductService.CreateCategory" => {
            (json!({"category": {"name": "A category", "parentId": nobody}}), Shop("CATEGORY_UNKNOWN"))
        }
        "product.v1.ProductService.UpdateCategory" => {
            (json!({"category": {"categoryId": nobody, "name": "Another name"}}), Shop("CATEGORY_NOT_FOUND"))
        }
        "inventory.v1.InventoryService.GetStock" => (json!({"sku": sku}), Shop("SKU_NOT_FOUND")),
        "inventory.v1.InventoryService.BatchGetStock" => (json!({"skus": [sku]}), Shop("")),
        "inventory.v1.InventoryService.ReceiveStock" => (json!({"sku": sku, "quantity": 1}), Shop("")),
        "inventory.v1.InventoryService.AdjustStock" => {
            (json!({"sku": sku, "change": -1, "reason": "ADJUST_REASON_LOSS"}), Shop("SKU_NOT_FOUND"))
        }
        "inventory.v1.InventoryService.GetReservation" => (json!({"orderId": nobody}), Shop("RESERVATION_NOT_FOUND")),
        "order.v1.OrderService.CreateOrder" => {
            let items = json!([{"productId": nobody, "quantity": 1}]);
            (json!({"items": items, "paymentMethod": "pm_card_visa"}), Shop("PRODUCT_UNAVAILABLE"))
        }
        "order.v1.CartService.GetCart" => (json!({}), Own),
        // The same product each time, so that only the first call changes anything.
        "order.v1.CartService.SetCartItem" => {
            (json!({"productId": "01a21008-32a4-7365-bd7c-246a1d31a94e", "quantity": 1}), Shop(""))
        }
        "order.v1.CartService.RemoveCartItem" => (json!({"productId": nobody}), Shop("")),
        "order.v1.CartService.ClearCart" => (json!({}), Shop("")),
        "order.v1.OrderService.GetOrder"
        | "order.v1.OrderService.ListOrderEvents"
        | "order.v1.OrderService.WatchOrder" => (json!({"orderId": order}), Named("ORDER_NOT_FOUND")),
        "order.v1.OrderService.ListOrders" => (json!({}), Own),
        "order.v1.OrderService.CancelOrder" => {
            (json!({"orderId": order, "reason": "CANCEL_REASON_CUSTOMER_REQUEST"}), Named("ORDER_NOT_FOUND"))
        }
        "order.v1.OrderService.FulfillOrder" => {
            let parcel = json!({"orderId": nobody, "carrier": "A carrier", "trackingNumber": "1"});
            (parcel, Shop("ORDER_NOT_FOUND"))
        }
        "order.v1.OrderService.ReturnItems" => {
            let item = json!({"productId": nobody, "quantity": 1, "disposition": "RETURN_DISPOSITION_RESTOCK"});
            (json!({"orderId": nobody, "items": [item]}), Shop("ORDER_NOT_FOUND"))
        }
        "order.v1.OrderService.GetShippingAddress" => (json!({"orderId": order}), Named("ORDER_NOT_FOUND")),
        "order.v1.OrderService.UpdateShippingAddress" => {
            let address = json!({"recipient": "Ada", "lines": ["1 Road"], "city": "London", "country": "GB"});
            (json!({"orderId": order, "address": address}), Named("ORDER_NOT_FOUND"))
        }
        "order.v1.OrderService.GetPickList"
        | "order.v1.OrderService.SearchOrders"
        | "inventory.v1.InventoryService.ListLowStock"
        | "payment.v1.PaymentService.SearchPayments"
        | "user.v1.UserService.ListUsers" => (json!({"pageSize": 1}), Shop("")),
        "inventory.v1.InventoryService.SetLowStockThreshold" => {
            (json!({"sku": sku, "threshold": 1}), Shop("SKU_NOT_FOUND"))
        }
        "inventory.v1.InventoryService.ListStockMovements" => (json!({"sku": sku}), Shop("SKU_NOT_FOUND")),
        "order.v1.OrderService.BatchGetOrderStates" => (json!({"orderIds": [nobody]}), Shop("")),
        "payment.v1.PaymentService.GetPayment" => (json!({"paymentId": payment}), Named("PAYMENT_NOT_FOUND")),
        "payment.v1.PaymentService.ListPayments" => (json!({"orderId": order}), Named("")),
        "payment.v1.PaymentService.GetLedger" => (json!({"paymentId": nobody}), Shop("PAYMENT_NOT_FOUND")),
        "payment.v1.PaymentService.RefundPayment" => {
            let refund = json!({"paymentId": nobody, "fullRefund": true, "reason": "REFUND_REASON_GOODS"});
            (refund, Shop("PAYMENT_NOT_FOUND"))
        }
        "payment.v1.PaymentService.ReceiveWebhook" => {
            // The two bytes of {}.
            let body = json!({"contentType": "application/json", "data": "e30="});
            (json!({"provider": "nobody", "body": body}), Shop("PROVIDER_NOT_FOUND"))
        }
        // Somebody else's are not there.
        "notification.v1.NotificationService.ListNotifications" => (json!({"userId": user}), Named("")),
        "notification.v1.NotificationService.GetPreferences" => (json!({}), Shop("")),
        // The same each time, so that only the first call changes anything.
        "notification.v1.NotificationService.UpdatePreferences" => {
            let (kind, channel) = ("NOTIFICATION_KIND_ORDER_CONFIRMED", "NOTIFICATION_CHANNEL_SMS");
            (json!({"preferences": [{"kind": kind, "channel": channel, "enabled": false}]}), Shop(""))
        }
        "notification.v1.NotificationService.ResendNotification" => {
            (json!({"notificationId": nobody}), Shop("NOTIFICATION_NOT_FOUND"))
        }
        "analytics.v1.AnalyticsService.GetSalesSummary"
        | "analytics.v1.AnalyticsService.ExportSales"
        | "analytics.v1.AnalyticsService.ListTopProducts"
        | "analytics.v1.AnalyticsService.GetCheckoutFunnel"
        | "analytics.v1.AnalyticsService.GetProjectionStatus"
        | "analytics.v1.AnalyticsService.RebuildProjection" => (json!({}), Shop("")),
        "ops.v1.OpsService.ListDeadLetters" | "ops.v1.OpsService.GetOutboxStatus" => (json!({}), Shop("")),
        "ops.v1.OpsService.RedriveDeadLetters" => {
            (json!({"consumer": "order.saga", "key": nobody}), Shop("KEY_NOT_PARKED"))
        }
        "ops.v1.OpsService.DiscardDeadLetters" => {
            let dead_letter =
                json!({"consumer": "order.saga", "key": nobody, "deadLetterIds": ["1"], "reason": "None"});
            (dead_letter, Shop("DEAD_LETTER_NOT_FOUND"))
        }
        _ => return None,
    })
}
